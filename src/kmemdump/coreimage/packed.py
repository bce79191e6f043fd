# SPDX-License-Identifier: GPL-2.0-or-later
"""
Memory that a core image keeps compressed, in a note of its own.

Unwind tables never change, and only kmemdump and its drgn plugin read them.
:class:`PackedMemory` unpacks them.

The note's descriptor: u32 version, u32 number of ranges; for each range u64 physical
address, u64 size; a zlib stream of the first of each four bytes of the memory, then of
the second ones, and so on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.formats import packing
from kmemdump.formats.elf import Note
from kmemdump.formats.notes import OWNER, NoteType, find_own
from kmemdump.formats.packing import (
    Compressor,
    decompress,
    from_columns,
    to_columns,
)
from kmemdump.memory.ranges import ADDRESS_SPACE, Range, merge, total

__all__ = [
    "PackedMemory",
    "find_packed",
    "pack_memory",
]

MAX_BYTES = 256 << 20
_MAX_RANGES = 1 << 16
_VERSION = 3
_HEADER = struct.Struct("<II")
_RANGE = struct.Struct("<QQ")
_WORD = 4
"""Bytes of a number in an unwind table."""


def pack_memory(
    ranges: Sequence[Range], data: bytes, compress: Compressor = packing.compress
) -> bytes:
    """
    Pack memory.

    :param ranges: Its ranges, sorted and merged.
    :param data: The memory of all ranges, one after the other.
    :return: The note's descriptor.
    """
    assert len(data) == total(ranges)
    table = b"".join(_RANGE.pack(item.start, item.size) for item in ranges)
    return (
        _HEADER.pack(_VERSION, len(ranges)) + table + compress(to_columns(data, _WORD))
    )


class PackedMemory:
    """
    The memory of a packed note.

    :param desc: The note's descriptor.
    :param source: Name of the input, for messages.
    :raises FormatError: If the table of ranges is damaged.
    """

    def __init__(self, desc: bytes, source: str) -> None:
        self._source = source
        if len(desc) < _HEADER.size:
            raise FormatError(source, f"{len(desc)} bytes, expected packed memory")
        version, count = _HEADER.unpack_from(desc)
        if version != _VERSION:
            raise FormatError(
                source, f"packed memory version {version}, expected {_VERSION}"
            )
        start = _HEADER.size + count * _RANGE.size
        if count > _MAX_RANGES or start > len(desc):
            raise FormatError(source, f"packed memory claims {count} ranges")
        self.ranges: Sequence[Range] = [
            Range(*_RANGE.unpack_from(desc, _HEADER.size + i * _RANGE.size))
            for i in range(count)
        ]
        if (
            merge(self.ranges) != self.ranges
            or total(self.ranges) > MAX_BYTES
            or (self.ranges and self.ranges[-1].end > ADDRESS_SPACE)
        ):
            raise FormatError(
                source, "ranges of packed memory overlap, are too large, or wrap around"
            )
        self._stream = desc[start:]
        self._data: bytes | None = None

    def _unpack(self) -> bytes:
        if self._data is None:
            where = f"{self._source}: packed memory"
            columns = decompress(self._stream, total(self.ranges), where)
            self._data = from_columns(columns, _WORD)
            self._stream = b""
        return self._data

    def read(self, address: int, size: int) -> bytes:
        """
        Read physical memory.

        :raises NotCapturedError: If any of it is not packed here.
        :raises FormatError: If the packed memory is damaged.
        """
        offset = 0
        for item in self.ranges:
            if item.start <= address and address + size <= item.end:
                start = offset + address - item.start
                return self._unpack()[start : start + size]
            offset += item.size
        raise NotCapturedError(f"{self._source} does not hold {address:#x}")

    def close(self) -> None:
        """Forget the memory."""
        self._data = None


def find_packed(notes: Iterable[Note], source: str) -> PackedMemory | None:
    """
    Return the packed memory of a core image, if it has one.

    :raises FormatError: If it is damaged.
    """
    desc = find_own(notes, NoteType.PACKED)
    return None if desc is None else PackedMemory(desc, f"{source}: note {OWNER}")
