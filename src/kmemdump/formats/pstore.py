# SPDX-License-Identifier: GPL-2.0-or-later
"""
Files of pstore: in /sys/fs/pstore, or where systemd-pstore moved them.

The kernel writes the end of its log in parts of a few KiB, the newest first: part 1 is
the end. Each begins with why it was written and how often the kernel failed before
(``pstore_dump()`` in fs/pstore/platform.c). The names are those of
``pstore_mkfile()`` in fs/pstore/inode.c.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from kmemdump.errors import FormatError

__all__ = ["PstoreName", "PstorePart", "parse_pstore_name", "parse_pstore_part"]

_NAME = re.compile(
    r"(?P<kind>dmesg|console)-(?P<backend>[A-Za-z0-9_]{1,32})-(?P<id>\d{1,20})"
    r"(?P<packed>\.enc\.z)?"
)
_HEAD = re.compile(rb"([A-Z][A-Za-z ]{1,20})#(\d{1,9}) Part(\d{1,6})\r?\n")
_MAX_PART = 4 << 20
"""Bytes of a part once decompressed; the kernel's are 64 KiB at most."""


@dataclass(frozen=True, slots=True)
class PstoreName:
    """What the name of a file says."""

    kind: str
    """``dmesg``, or ``console``, which is all that the console showed."""
    backend: str
    id: int
    packed: bool
    """Whether the kernel that showed the file could not decompress it."""


@dataclass(frozen=True, slots=True)
class PstorePart:
    """A part of a log."""

    reason: str
    """``Panic``, ``Oops``, …"""
    count: int
    """How many logs the kernel had written since its boot, with this one."""
    part: int
    """1 is the newest part."""
    text: bytes


def parse_pstore_name(name: str) -> PstoreName | None:
    """Return what a file's name says; ``None`` if it is no such file."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return PstoreName(
        match["kind"], match["backend"], int(match["id"]), bool(match["packed"])
    )


def parse_pstore_part(data: bytes, source: str, *, packed: bool) -> PstorePart:
    """
    Parse a file of the kind ``dmesg``.

    :param packed: As in its name.
    :raises FormatError: If it is no such part, or is compressed in a way that Python
        does not know.
    """
    if packed:
        data = _decompress(data, source)
    match = _HEAD.match(data)
    if match is None:
        raise FormatError(
            source, f"begins with {data[:20]!r}, expected for example 'Panic#1 Part1'"
        )
    reason = match[1].decode()
    return PstorePart(reason, int(match[2]), int(match[3]), data[match.end() :])


def _decompress(data: bytes, source: str) -> bytes:
    # Linux 6.6 and later have deflate alone; before, it was one of several algorithms.
    for window in (-zlib.MAX_WBITS, zlib.MAX_WBITS):
        unpack = zlib.decompressobj(window)
        try:
            text = unpack.decompress(data, _MAX_PART)
        except zlib.error:
            continue
        if _HEAD.match(text):
            return text
    raise FormatError(
        source,
        "is compressed, but not with deflate\n"
        "a kernel with the same pstore.compress shows it decompressed",
    )
