# SPDX-License-Identifier: GPL-2.0-or-later
"""
The debug info of a kernel in a core image: symbols, types, types of variables.

The descriptor of the note: u32 version, u32 number of sections, u64 start and u64 end
of the kernel's image; for each section u32 kind, u32 0, u64 size, u64 size of its zlib
stream; the streams. The symbols are in columns, by address: what is alike compresses
well if it is together.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate, chain, pairwise

from kmemdump.errors import FormatError
from kmemdump.formats import packing
from kmemdump.formats.packing import (
    Compressor,
    decompress,
    from_columns,
    to_columns,
)
from kmemdump.formats.symbols import SymbolTable
from kmemdump.text import printable

__all__ = ["DebugInfoNote", "pack_debug_info", "parse_debug_info", "split_place"]

_VERSION = 2
_HEADER = struct.Struct("<IIQQ")
_SECTION = struct.Struct("<IIQQ")
_TYPE_ID = struct.Struct("<I")
_MAX_SECTIONS = 64
_MAX_BYTES = 256 << 20
_MAX_TEXT = 4096
_KERNEL = 1 << 63
"""Kernel addresses begin above it; what is below does not move with the image."""


class _Section(IntEnum):
    NAMES = 1
    """The name of each symbol, with a NUL behind it."""
    INFO = 2
    """``st_info`` of each symbol: one byte."""
    ADDRESSES = 3
    """How far each is from the one before: the lowest byte of all, then the next…"""
    SIZES = 4
    """Size of each in 32 bits, in bytes as the addresses; left out if unknown."""
    BTF = 5
    """The kernel's BTF."""
    MORE_BTF = 6
    """BTF that continues it, as a module's does; only of a kernel's debug file."""
    VARIABLES = 7
    """For each variable the u32 id of its type, its name and a NUL."""
    LACKS = 8
    """What is missing, in one line; left out if nothing is."""


@dataclass(frozen=True, slots=True)
class DebugInfoNote:
    """The contents of the note."""

    symbols: SymbolTable
    btf: bytes
    start: int
    """Address of the kernel's image."""
    end: int
    more_btf: bytes = b""
    """BTF that continues *btf*; empty without a debug file's types."""
    variables: Mapping[str, int] = field(default_factory=dict)
    """Variables to ids of their types."""
    lacks: str = ""
    """What is missing, in one line; empty if nothing is."""


def pack_debug_info(
    info: DebugInfoNote, compress: Compressor = packing.compress
) -> bytes:
    """Return the note's descriptor."""
    symbols = info.symbols
    distances = (b - a for a, b in pairwise(chain([0], symbols.addresses)))
    sections = {
        _Section.NAMES: symbols.names[:],
        _Section.INFO: symbols.info[:],
        _Section.ADDRESSES: _to_columns("Q", distances),
        _Section.SIZES: _to_columns("I", symbols.sizes),
        _Section.BTF: info.btf,
        _Section.MORE_BTF: info.more_btf,
        _Section.VARIABLES: b"".join(
            _TYPE_ID.pack(type_id) + name.encode("utf-8", "replace") + b"\0"
            for name, type_id in info.variables.items()
        ),
        _Section.LACKS: info.lacks.encode("utf-8", "replace"),
    }
    sections = {kind: data for kind, data in sections.items() if data}
    streams = [compress(data) for data in sections.values()]
    table = b"".join(
        _SECTION.pack(kind, 0, len(data), len(stream))
        for (kind, data), stream in zip(sections.items(), streams, strict=True)
    )
    head = _HEADER.pack(_VERSION, len(sections), info.start, info.end)
    return head + table + b"".join(streams)


def parse_debug_info(desc: bytes, source: str) -> DebugInfoNote:
    """
    Parse the note's descriptor.

    :param source: Name of the input, for messages.
    :raises FormatError: If it is damaged.
    """
    start, end, streams = _split(desc, source)
    found = {
        kind: decompress(stream, size, f"{source}, section {kind}")
        for kind, (size, stream) in streams.items()
        if kind in tuple(_Section)  # Of a later version, if it is another.
    }
    return DebugInfoNote(
        _parse_symbols(found, source),
        found.get(_Section.BTF, b""),
        start,
        end,
        found.get(_Section.MORE_BTF, b""),
        _parse_variables(found.get(_Section.VARIABLES, b""), source),
        printable(
            found.get(_Section.LACKS, b"")[:_MAX_TEXT].decode("utf-8", "replace")
        ),
    )


def split_place(desc: bytes, source: str) -> tuple[int, list[bytes]]:
    """
    Return where a kernel lies, and what its note has wherever it lies.

    :param source: Name of the input, for messages.
    :return: The address of the first symbol of the image, and bytes that are the same
        for two notes only if all else is the same.
    :raises FormatError: If it is damaged.
    """
    start, end, streams = _split(desc, source)
    size, stream = streams.get(_Section.ADDRESSES, (0, packing.compress(b"")))
    data = decompress(stream, size, f"{source}, section {_Section.ADDRESSES}")
    distances = _from_columns("Q", data, source)
    place = first = 0
    for first, distance in enumerate(distances):
        place += distance
        if place >= _KERNEL:
            distances[first] = 0
            break
    else:
        place = 0
    numbers = (first, start - place, end - place, size)
    same = [repr(numbers).encode(), distances.tobytes()]
    for kind, (size, stream) in sorted(streams.items()):
        if kind != _Section.ADDRESSES:
            same += [repr((kind, size)).encode(), stream]
    return place, same


def _split(desc: bytes, source: str) -> tuple[int, int, dict[int, tuple[int, bytes]]]:
    """Return start and end of the image, and by kind sizes of sections, and streams."""
    if len(desc) < _HEADER.size:
        raise FormatError(source, f"{len(desc)} bytes, expected debug info")
    version, count, start, end = _HEADER.unpack_from(desc)
    if version != _VERSION:
        raise FormatError(source, f"debug info version {version}, expected {_VERSION}")
    offset = _HEADER.size + count * _SECTION.size
    if count > _MAX_SECTIONS or offset > len(desc):
        raise FormatError(source, f"debug info claims {count} sections")
    if not start < end:
        raise FormatError(source, f"image from {start:#x} to {end:#x}")
    found: dict[int, tuple[int, bytes]] = {}
    room = _MAX_BYTES
    for i in range(count):
        kind, _, size, stored = _SECTION.unpack_from(
            desc, _HEADER.size + i * _SECTION.size
        )
        where = f"{source}, section {kind}"
        if size > room or offset + stored > len(desc):
            raise FormatError(
                where, f"{size} bytes in {stored}, expected at most {room} in all"
            )
        room -= size
        found[kind] = size, desc[offset : offset + stored]
        offset += stored
    return start, end, found


def _parse_symbols(found: Mapping[int, bytes], source: str) -> SymbolTable:
    names, info = found.get(_Section.NAMES, b""), found.get(_Section.INFO, b"")
    distances = _from_columns("Q", found.get(_Section.ADDRESSES, b""), source)
    sizes = _from_columns("I", found.get(_Section.SIZES, b""), source)
    count = len(info)
    if names.count(b"\0") != count or (count and names[-1] != 0):
        raise FormatError(source, f"names do not end {count} times, as symbols do")
    if len(distances) != count or len(sizes) not in (0, count):
        raise FormatError(
            source,
            f"{len(distances)} addresses and {len(sizes)} sizes of {count} symbols",
        )
    try:
        addresses = array("Q", accumulate(distances))
    except OverflowError:
        raise FormatError(source, "addresses of symbols exceed 64 bits") from None
    return SymbolTable(names, info, addresses, sizes)


def _parse_variables(data: bytes, source: str) -> dict[str, int]:
    variables = {}
    at = 0
    while at < len(data):
        end = data.find(b"\0", at + _TYPE_ID.size)
        if end < 0:
            raise FormatError(source, f"variables are cut short at {at:#x}")
        name = data[at + _TYPE_ID.size : end].decode("utf-8", "replace")
        variables[name] = _TYPE_ID.unpack_from(data, at)[0]
        at = end + 1
    return variables


def _to_columns(kind: str, numbers: Iterable[int]) -> bytes:
    """Return the lowest byte of all numbers, then the next one of all, and so on."""
    words = array(kind, numbers)
    if sys.byteorder == "big":
        words.byteswap()
    return to_columns(words.tobytes(), words.itemsize)


def _from_columns(kind: str, data: bytes, source: str) -> array[int]:
    numbers = array(kind)
    width = numbers.itemsize
    if len(data) % width:
        raise FormatError(source, f"{len(data)} bytes of numbers of {width} bytes")
    numbers.frombytes(from_columns(data, width))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
