# SPDX-License-Identifier: GPL-2.0-or-later
"""
Columns of numbers and bytes in a file that processes map, so that they share it.

The file: eight bytes of magic, the u64 size of a JSON text, the text, and the columns,
each from the start of a page on. It is read on the machine that wrote it.
"""

from __future__ import annotations

import json
import mmap
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmemdump.errors import FormatError
from kmemdump.files import PartialFile

__all__ = ["Columns", "read_columns", "write_columns"]

_MAGIC = b"KMDCOLS1"
_SIZE = struct.Struct("<Q")
_PAGE = mmap.ALLOCATIONGRANULARITY
_MAX_TEXT = 64 << 20


@dataclass(frozen=True, slots=True)
class Columns:
    """What a file has."""

    about: dict[str, Any]
    """What is no column, of what JSON has."""
    columns: Mapping[str, mmap.mmap | bytes]
    """By name; an empty column is of bytes."""

    def numbers(self, name: str, kind: str) -> memoryview[int]:
        """
        Return a column of numbers.

        :param kind: As for :class:`array.array`.
        """
        return memoryview(self.columns[name]).cast(kind)  # type: ignore[call-overload,no-any-return]


def write_columns(
    path: Path, about: Mapping[str, Any], columns: Mapping[str, Any]
) -> None:
    """
    Write a file.

    :param columns: Objects that have bytes.
    :raises OutputError: If it cannot be written.
    """
    parts = {name: memoryview(data).cast("B") for name, data in columns.items()}
    sizes = {name: len(part) for name, part in parts.items()}
    text = json.dumps({"about": about, "sizes": sizes}).encode()
    with PartialFile(path) as output:
        at = output.write(_MAGIC + _SIZE.pack(len(text)) + text)
        for part in parts.values():
            at += output.write(bytes(-at % _PAGE))
            at += output.write(part)


def read_columns(path: Path) -> Columns:
    """
    Map a file of this user's.

    :raises OSError: If it cannot be read.
    :raises FormatError: If it is none, or others may have written it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return _map(fd, str(path))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(str(path), f"not a file of columns: {error}") from error
    finally:
        os.close(fd)


def _map(fd: int, name: str) -> Columns:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022:
        raise FormatError(name, "others may write it, expected a file of this user's")
    if status.st_uid != os.geteuid():
        raise FormatError(name, f"user {status.st_uid}'s, expected this user's")
    head = os.pread(fd, len(_MAGIC) + _SIZE.size, 0)
    if len(head) < len(_MAGIC) + _SIZE.size or not head.startswith(_MAGIC):
        raise FormatError(name, f"begins with {head[:8]!r}, expected {_MAGIC!r}")
    (size,) = _SIZE.unpack_from(head, len(_MAGIC))
    if size > min(_MAX_TEXT, status.st_size):
        raise FormatError(name, f"claims a text of {size} bytes")
    text = json.loads(os.pread(fd, size, len(head)))
    columns: dict[str, mmap.mmap | bytes] = {}
    at = len(head) + size
    for column, length in text["sizes"].items():
        at += -at % _PAGE
        if not 0 <= length <= status.st_size - at:
            raise FormatError(name, f"column {column} of {length} bytes at {at:#x}")
        columns[column] = b""
        if length:
            columns[column] = mmap.mmap(
                fd, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=at
            )
        at += length
    return Columns(text["about"], columns)
