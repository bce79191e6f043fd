# SPDX-License-Identifier: GPL-2.0-or-later
"""
The note that a crash kernel's copier adds to its copy: how to know that it is whole.

``kdump/image.h`` has the same.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from kmemdump.errors import FormatError
from kmemdump.formats.notes import NoteType, read_own

__all__ = ["COPIED", "Copied", "check_copy", "read_copied"]

COPIED = struct.Struct("<4I4Q")
_VERSION = 1
_CHECK = slice(4, 8)
"""The checksum of the header, in the note."""
_CHUNK = 1 << 20


class Copied(NamedTuple):
    """What the copier says about its copy."""

    version: int
    header_check: int
    """CRC-32 of the bytes before *data*, with zeros in its own place."""
    data_check: int
    """CRC-32 of those from *data* on."""
    regions: int
    size: int
    """Of the whole copy, in bytes."""
    data: int
    """Offset of the first region."""
    missing: int
    """Bytes of the regions that could not be read."""
    sequence: int
    """Of the list; it grows with each change."""


def read_copied(
    read: Callable[[int, int], bytes], size: int, source: str
) -> Copied | None:
    """
    Read the note.

    :param read: Reads a part of the ELF core, by its offset and its size.
    :param size: Size of the core in bytes.
    :return: ``None`` if there is none.
    :raises FormatError: If the core is damaged, or the note is of another version.
    """
    desc = read_own(read, size, source, NoteType.COPIED, COPIED.size)
    if desc is None:
        return None
    if len(desc) != COPIED.size:
        raise FormatError(
            source, f"note of a copy has {len(desc)} bytes, expected {COPIED.size}"
        )
    copied = Copied._make(COPIED.unpack(desc))
    if copied.version != _VERSION:
        raise FormatError(
            source, f"note of a copy has version {copied.version}, expected {_VERSION}"
        )
    return copied


def check_copy(
    read: Callable[[int, int], bytes], copied: Copied, source: str
) -> list[str]:
    """
    Check that a copy is as it was written.

    :return: What is wrong, one line each.
    """
    problems = []
    desc = COPIED.pack(*copied)
    header = read(0, copied.data) if copied.data <= _MAX_HEADER else b""
    at = header.rfind(desc)
    blank = desc[: _CHECK.start] + bytes(4) + desc[_CHECK.stop :]
    if at >= 0:
        header = header[:at] + blank + header[at + len(desc) :]
    if zlib.crc32(header) != copied.header_check:
        problems.append(f"{source}: the checksum of its headers is wrong")
    check, offset = 0, copied.data
    while offset < copied.size:
        part = read(offset, min(_CHUNK, copied.size - offset))
        if not part:
            break
        check, offset = zlib.crc32(part, check), offset + len(part)
    if offset < copied.size:
        problems.append(f"{source}: has {offset} of {copied.size} bytes")
    elif check != copied.data_check:
        problems.append(f"{source}: the checksum of its memory is wrong")
    if copied.missing:
        problems.append(
            f"{source}: {copied.missing} bytes of the regions could not be read by the "
            "crash kernel"
        )
    return problems


_MAX_HEADER = 32 << 20
"""Most bytes before the first region: 8192 CPUs have 4 MiB of notes."""
