# SPDX-License-Identifier: GPL-2.0-or-later
"""
LiME: physical memory as its loadable module writes it, version 1.

Each range of System RAM follows its header; LiME's doc/README.md has the layout.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from kmemdump.errors import FormatError

__all__ = ["LIME_HEADER", "LIME_MAGIC", "LimeRange", "parse_lime"]

LIME_MAGIC = b"EMiL"

_HEADER = struct.Struct("<4sIQQ8x")  # lime_mem_range_header, include/lime.h
LIME_HEADER = _HEADER.size
"""Size of the header before each range, in bytes."""
_MAX_RANGES = 1 << 16


@dataclass(frozen=True, slots=True)
class LimeRange:
    """A range of physical memory."""

    address: int
    """Physical address in bytes."""
    size: int
    """Size in bytes, as far as it is in the file."""
    offset: int
    """Offset of the data in the file in bytes."""
    missing: int = field(default=0, compare=False)
    """Bytes of the range that lie past the end of the file."""


def parse_lime(
    read: Callable[[int, int], bytes], size: int, source: str
) -> list[LimeRange]:
    """
    Parse the headers of a LiME file.

    A file that ends within a range, because a disk was full, is read to its end.

    :return: Ranges in the order of the file, which need not be sorted.
    :raises FormatError: If a header is wrong.
    """
    ranges: list[LimeRange] = []
    offset = 0
    while offset < size:
        where = f"{source}+{offset:#x}"
        raw = read(offset, _HEADER.size)
        if len(raw) < _HEADER.size:
            if ranges:
                break
            raise FormatError(where, f"{len(raw)} bytes, expected a LiME header of 32")
        magic, version, start, last = _HEADER.unpack(raw)
        if magic != LIME_MAGIC or version != 1:
            raise FormatError(
                where,
                f"magic {magic.hex(' ')} and version {version}, expected "
                f"{LIME_MAGIC.hex(' ')} and 1 (LiME)",
            )
        if last < start:
            raise FormatError(
                where, f"range {start:#x}-{last:#x} ends before it starts"
            )
        if len(ranges) == _MAX_RANGES:
            raise FormatError(where, f"more than {_MAX_RANGES} ranges")
        offset += _HEADER.size
        count = last - start + 1
        if held := min(count, size - offset):
            ranges.append(LimeRange(start, held, offset, count - held))
        offset += count
    return ranges
