# SPDX-License-Identifier: GPL-2.0-or-later
"""
The list of regions that a crash kernel finds in the dead kernel's memory.

It starts at a multiple of 2 MiB, so that few places have to be looked at to find it: an
anchor that never changes, then two halves. Each half has a header and a description,
which is the beginning of an ELF core: ELF header, program headers with the regions'
physical and virtual addresses, notes with VMCOREINFO. The half with the larger sequence
number is the current one, if its checksum is right; the other one is written
meanwhile. So between any two stores there is a list that is whole.

``kdump/list.c`` reads it.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from kmemdump.errors import FormatError
from kmemdump.memory.ranges import round_down

__all__ = [
    "LIST_MAGIC",
    "LIST_SIZE",
    "KdumpList",
    "ListHalf",
    "half_places",
    "pack_anchor",
    "pack_half",
    "parse_list",
]

LIST_MAGIC = b"kmemdump regions"
LIST_SIZE = 2 << 20
"""Size in bytes, and what the address is a multiple of."""

_VERSION = 1
_HALVES = 2
_FIRST = 4096
"""Offset of the first half."""
_HALF_SIZE = round_down((LIST_SIZE - _FIRST) // _HALVES, 64)

# Magic number, version, halves, own physical address, offset of the first half, size of
# a half, reserved; checksum of these.
_ANCHOR = struct.Struct("<16sIIQQQQ")
_CHECK = struct.Struct("<I4x")
# Sequence number, size of the description, its checksum; checksum of these.
_HALF = struct.Struct("<QQI")
_HALF_CHECK = struct.Struct("<I40x")
_HALF_HEADER = _HALF.size + _HALF_CHECK.size


class ListHalf(NamedTuple):
    """A half of the list."""

    sequence: int
    description: bytes


class KdumpList(NamedTuple):
    """What is in a list."""

    address: int
    """Its physical address in bytes."""
    halves: tuple[ListHalf | None, ...]
    """``None`` for one that is not whole."""

    @property
    def current(self) -> ListHalf | None:
        """The half that a crash kernel would take."""
        whole = [half for half in self.halves if half is not None]
        return max(whole, default=None)


def pack_anchor(address: int) -> bytes:
    """
    Return the start of the list.

    :param address: Where it will be, in physical memory. A copy elsewhere is not taken
        for a list.
    """
    anchor = _ANCHOR.pack(LIST_MAGIC, _VERSION, _HALVES, address, _FIRST, _HALF_SIZE, 0)
    return anchor + _CHECK.pack(zlib.crc32(anchor))


def pack_half(half: ListHalf) -> bytes:
    """
    Return a half with its header.

    :raises FormatError: If there is no room for its description.
    """
    room = _HALF_SIZE - _HALF_HEADER
    size = len(half.description)
    if size > room:
        raise FormatError(
            "the list for the crash kernel",
            f"{size} bytes of descriptions, expected at most {room}",
        )
    header = _HALF.pack(half.sequence, size, zlib.crc32(half.description))
    return header + _HALF_CHECK.pack(zlib.crc32(header)) + half.description


def half_places() -> tuple[int, ...]:
    """Return the offset of each half in the list."""
    return tuple(_FIRST + i * _HALF_SIZE for i in range(_HALVES))


def parse_list(data: bytes, address: int, source: str) -> KdumpList:
    """
    Parse a list.

    :param data: At least :data:`LIST_SIZE` bytes.
    :param address: Where it was, in physical memory.
    :raises FormatError: If there is none, or its start is damaged.
    """
    if len(data) < _ANCHOR.size + _CHECK.size or not data.startswith(LIST_MAGIC):
        raise FormatError(
            source, f"starts with {data[:16]!r}, expected {LIST_MAGIC!r} of a list"
        )
    anchor = data[: _ANCHOR.size]
    (check,) = _CHECK.unpack_from(data, _ANCHOR.size)
    if check != zlib.crc32(anchor):
        raise FormatError(source, f"checksum {check:#x} of its start is wrong")
    _, version, count, own, first, size, _ = _ANCHOR.unpack(anchor)
    if (version, count) != (_VERSION, _HALVES):
        raise FormatError(
            source,
            f"version {version}, {count} halves, expected {_VERSION} and {_HALVES}",
        )
    if own != address:
        raise FormatError(
            source, f"a copy of one that was at {own:#x}, expected {address:#x}"
        )
    places = [first + i * size for i in range(count)]
    return KdumpList(address, tuple(_parse_half(data, at, size) for at in places))


def _parse_half(data: bytes, at: int, room: int) -> ListHalf | None:
    header = data[at : at + _HALF_HEADER]
    if len(header) < _HALF_HEADER:
        return None
    sequence, size, check = _HALF.unpack_from(header)
    (own,) = _HALF_CHECK.unpack_from(header, _HALF.size)
    if own != zlib.crc32(header[: _HALF.size]) or not sequence:
        return None
    if size > room - _HALF_HEADER:
        return None
    description = data[at + _HALF_HEADER : at + _HALF_HEADER + size]
    if len(description) < size or zlib.crc32(description) != check:
        return None
    return ListHalf(sequence, description)
