# SPDX-License-Identifier: GPL-2.0-or-later
"""
The minidump table: item 602 of Qualcomm SMEM, and the region arrays that it points to.

Structures are those of Linux ``include/linux/soc/qcom/minidump.h``, which the kernel's
kmemdump series, Android's kernels and Rockchip's firmware share.
:func:`parse_old_table` reads the layout before it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import IntEnum

from kmemdump.errors import FormatError
from kmemdump.memory.ranges import ADDRESS_SPACE
from kmemdump.text import c_string

__all__ = [
    "ALL_ROWS",
    "LINUX_ROWS",
    "MAX_FILE_LABEL",
    "MAX_ROWS",
    "MINIDUMP_ITEM",
    "REGION_SIZE",
    "SUBSYSTEM_SIZE",
    "TOC_SIZE",
    "GlobalToc",
    "OldTable",
    "Subsystem",
    "TableRegion",
    "Word",
    "check_regions",
    "pack_region",
    "pack_subsystem",
    "parse_old_table",
    "parse_regions",
    "parse_toc",
    "region_array_size",
    "row_label",
]

MINIDUMP_ITEM = 602
"""Number of the SMEM item, which is for any host."""
MAX_ROWS = 4096
"""Most regions that are parsed; firmware takes 201 to 401."""
ALL_ROWS = 300
"""Most regions of all subsystems together that old firmware takes."""
LINUX_ROWS = 201
"""Most regions that Linux registers, for that reason."""

_TOC = struct.Struct("<III4x")  # struct minidump_global_toc without subsystems[]
_SUBSYSTEM = struct.Struct("<IIIII4xQ")  # struct minidump_subsystem
_REGION = struct.Struct("<16sIIQQ")  # struct minidump_region
_OLD_HEADER = struct.Struct("<IIQ16sQ")
_OLD_ROW = struct.Struct("<16sQQ")

TOC_SIZE = _TOC.size
SUBSYSTEM_SIZE = _SUBSYSTEM.size
REGION_SIZE = _REGION.size
"""Sizes in bytes of the structures."""

_NAME_SIZE = 16
MAX_FILE_LABEL = 12
"""Longest name that fits into a file name: md_NAME.BIN and a NUL are 20 bytes."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class Word(IntEnum):
    """
    Values that spell words, with the first letter in the top byte.

    Some versions of the table use only a part of them.
    """

    VALI = 0x56414C49
    INVA = 0x494E5641
    INIT = 0x494E4954
    ENBL = 0x454E424C
    DSBL = 0x4453424C
    DONE = 0x444F4E45
    NONE = 0x4E4F4E45
    STRT = 0x53545254
    YES = 0x00594553
    NR = 0x00004E52
    NSEN = 0x4E53454E


@dataclass(frozen=True, slots=True)
class Subsystem:
    """The row of one processor."""

    status: int
    """1 if it is initialised."""
    enabled: int
    """:attr:`Word.ENBL` if firmware is to dump it."""
    encryption_status: int
    encryption_required: int
    region_count: int
    regions_address: int
    """Physical address of the region array in bytes, 0 if there is none."""

    @property
    def initialized(self) -> bool:
        """Whether the array and its count can be used."""
        return self.status != 0 and self.regions_address != 0

    @property
    def is_enabled(self) -> bool:
        return self.enabled == Word.ENBL

    @property
    def is_plain(self) -> bool:
        """Whether firmware has been told not to encrypt."""
        encryption = self.encryption_status, self.encryption_required
        return encryption == (Word.DONE, Word.NR)


@dataclass(frozen=True, slots=True)
class GlobalToc:
    """The item's head, and a row for each subsystem."""

    status: int
    """Not 0 if the firmware is ready for minidumps."""
    revision: int
    enabled: int
    subsystems: tuple[Subsystem, ...]
    """Number 0 is the application processors', where Linux runs."""


@dataclass(frozen=True, slots=True)
class TableRegion:
    """A row of a region array."""

    name: str
    sequence: int
    """``seq_num``; the kernel's series puts the id of the region there."""
    valid: int
    """:attr:`Word.VALI` if firmware is to dump it."""
    address: int
    """Physical address in bytes."""
    size: int
    """Size in bytes."""

    @property
    def is_valid(self) -> bool:
        return self.valid == Word.VALI


@dataclass(frozen=True, slots=True)
class OldTable:
    """Item 602 as the first downstream kernels had it (2017)."""

    smem_length: int
    regions: tuple[TableRegion, ...]
    """Their sequence is 0, and they are valid as soon as they have a size."""


def parse_toc(data: bytes, source: str) -> GlobalToc:
    """
    Parse item 602.

    :param data: The whole item; its size gives the number of subsystems.
    :raises FormatError: If it has no room for a subsystem.
    """
    if len(data) < _TOC.size + _SUBSYSTEM.size:
        raise FormatError(
            source,
            f"minidump item of {len(data)} bytes, expected at least "
            f"{_TOC.size + _SUBSYSTEM.size}",
        )
    count = min((len(data) - _TOC.size) // _SUBSYSTEM.size, MAX_ROWS)
    rows = data[_TOC.size : _TOC.size + count * _SUBSYSTEM.size]
    status, revision, enabled = _TOC.unpack_from(data)
    subsystems = tuple(Subsystem(*fields) for fields in _SUBSYSTEM.iter_unpack(rows))
    return GlobalToc(status, revision, enabled, subsystems)


def region_array_size(subsystem: Subsystem, source: str) -> int:
    """
    Return the number of bytes to read for :func:`parse_regions`.

    :raises FormatError: If the subsystem's array is too large, or wraps around.
    """
    count = subsystem.region_count
    size = count * _REGION.size
    if count > MAX_ROWS:
        raise FormatError(source, f"{count} regions, expected at most {MAX_ROWS}")
    if subsystem.regions_address + size > ADDRESS_SPACE:
        raise FormatError(
            source, f"region array at {subsystem.regions_address:#x} wraps around"
        )
    return size


def parse_regions(data: bytes, count: int, source: str) -> list[TableRegion]:
    """
    Parse the rows of a region array, valid or not.

    :param count: Number of rows that the subsystem has.
    :raises FormatError: If *data* holds fewer.
    """
    if not 0 <= count <= MAX_ROWS or len(data) < count * _REGION.size:
        raise FormatError(
            source,
            f"{count} regions in {len(data)} bytes, expected at most {MAX_ROWS} of "
            f"{_REGION.size} bytes each",
        )
    return [
        TableRegion(_text(name), sequence, valid, address, size)
        for name, sequence, valid, address, size in _REGION.iter_unpack(
            data[: count * _REGION.size]
        )
    ]


def check_regions(regions: Sequence[TableRegion]) -> list[list[str]]:
    """Return the problems that firmware would have with each row."""
    problems: list[list[str]] = [[] for _ in regions]
    placed = []
    numbers: dict[int, int] = {}
    for i, region in enumerate(regions):
        if not region.is_valid:
            problems[i].append(f"is not valid: {region.valid:#010x}")
            continue
        problems[i] += _check_region(region)
        first = numbers.setdefault(region.sequence, i)
        if region.sequence and first != i:
            problems[i].append(f"has number {region.sequence}, as row {first} has")
        if 0 < region.size <= ADDRESS_SPACE - region.address:
            placed.append((region.address, region.address + region.size, i))
    placed.sort()
    last_end, last = 0, 0
    for start, end, i in placed:
        if start < last_end:
            problems[i].append(f"overlaps {row_label(last, regions[last])}")
        if end > last_end:
            last_end, last = end, i
    return problems


def row_label(i: int, region: TableRegion) -> str:
    """Return the name of a row in messages."""
    return f"row {i} ({region.name or 'no name'})"


def _check_region(region: TableRegion) -> list[str]:
    problems = []
    if not region.name:
        problems.append("is valid and has no name: firmware makes no file of it")
    elif len(region.name) > MAX_FILE_LABEL or not _PLAIN_NAME.fullmatch(region.name):
        problems.append(
            f"has a name that is unfit for a file: expected at most {MAX_FILE_LABEL} "
            "letters, digits, _, - and ."
        )
    if region.size == 0:
        problems.append("has no bytes")
    elif region.size % 4:
        problems.append(f"has {region.size} bytes, no multiple of 4")
    if region.address + region.size > ADDRESS_SPACE:
        problems.append("wraps around the end of memory")
    return problems


def pack_subsystem(subsystem: Subsystem) -> bytes:
    """Return the row of a subsystem."""
    return _SUBSYSTEM.pack(*astuple(subsystem))


def pack_region(region: TableRegion) -> bytes:
    """
    Return a row of a region array.

    :raises FormatError: If the name is not ASCII of at most 15 characters.
    """
    if not region.name.isascii() or not 0 < len(region.name) < _NAME_SIZE:
        raise FormatError(
            f"region name {region.name!r}",
            f"expected 1 to {_NAME_SIZE - 1} ASCII characters",
        )
    _, *numbers = astuple(region)
    return _REGION.pack(region.name.encode("ascii"), *numbers)


def parse_old_table(data: bytes, source: str) -> OldTable:
    """
    Parse item 602 in its oldest layout, which has neither magic words nor subsystems.

    Rows go from the offset in the header to the end of the item, or to a row without
    a name.

    :raises FormatError: If the header does not fit the item.
    """
    if len(data) < _OLD_HEADER.size:
        raise FormatError(
            source,
            f"minidump item of {len(data)} bytes, expected at least "
            f"{_OLD_HEADER.size} in the oldest layout",
        )
    _, length, offset, _, _ = _OLD_HEADER.unpack_from(data)
    if length > len(data) or not _OLD_HEADER.size <= offset <= len(data):
        raise FormatError(
            source,
            f"length {length:#x} and next offset {offset:#x} in an item of "
            f"{len(data):#x} bytes: not the oldest layout",
        )
    regions: list[TableRegion] = []
    while len(regions) < MAX_ROWS and offset + _OLD_ROW.size <= len(data):
        name, address, size = _OLD_ROW.unpack_from(data, offset)
        if not name.strip(b"\0"):
            break
        valid = Word.VALI if size else 0
        regions.append(TableRegion(_text(name), 0, valid, address, size))
        offset += _OLD_ROW.size
    return OldTable(length, tuple(regions))


def _text(raw: bytes) -> str:
    # Remoteproc cuts names at 15 characters, with or without a NUL.
    return c_string(raw[: _NAME_SIZE - 1])
