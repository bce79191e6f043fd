# SPDX-License-Identifier: GPL-2.0-or-later
"""
Find Qualcomm SMEM in a machine's memory.

The machine's device tree has its address; firmware leaves the tree in memory for the
kernel, which keeps it. On a machine without a device tree (x86), SMEM is found by its
contents.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice

from kmemdump.errors import FormatError, NotCapturedError, TargetError
from kmemdump.firmware.device_tree import SMEM, trees_in
from kmemdump.formats.fdt import reserved_ranges
from kmemdump.formats.smem import MAX_SMEM_BYTES, is_smem_start, parse_smem
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Range
from kmemdump.memory.search import find_bytes

__all__ = ["find_smem"]

_PAGE = 4096
_TABLE = struct.pack("<4sI", b"$TOC", 1)
_PARTITION = b"$PRT"
_4G = 1 << 32
_MAX_TABLES = 1000
_MAX_TRIED_BYTES = 1 << 30
"""Of all regions that are tried: a guest can fill its memory with what looks so."""


def find_smem(memory: Memory, source: str = "memory") -> Range:
    """
    Find an SMEM region that Linux's driver would accept.

    If no device tree in the memory names one, only version 12 is found: its last page
    holds the partition table, with the offset of each partition, and a partition starts
    with a magic number.

    :param source: Name of the memory, for messages.
    :raises TargetError: If no region is found.
    :raises FormatError: If there are several.
    """
    for tree in trees_in(memory, source):
        for reserved in reserved_ranges(tree, SMEM):
            if reserved.size <= MAX_SMEM_BYTES and _accepted(memory, reserved, source):
                return reserved
    found: list[Range] = []
    tried = 0
    for table in islice(find_bytes(memory, _TABLE, _PAGE, _4G), _MAX_TABLES):
        for region in _regions(memory, table):
            if not is_smem_start(_start(memory, region)):
                continue
            tried += region.size
            if tried > _MAX_TRIED_BYTES:
                raise FormatError(
                    source,
                    f"more than {_MAX_TRIED_BYTES >> 20} MiB look like SMEM\n"
                    "give its address with --smem ADDRESS:SIZE",
                )
            if _accepted(memory, region, source):
                found.append(region)
                break
    if not found:
        raise TargetError(
            f"{source}: no SMEM of version 12 found below 4 GiB\n"
            "give its address with --smem ADDRESS:SIZE if it is of another version"
        )
    if len(found) > 1:
        where = ", ".join(map(str, found[:5]))
        raise FormatError(source, f"{len(found)} SMEM regions, expected one: {where}")
    return found[0]


def _regions(memory: Memory, table: int) -> Iterator[Range]:
    """Yield what may be a table's region, which ends with it."""
    try:
        rows = _rows(memory.read(table, _PAGE))
    except NotCapturedError:
        return
    end = table + _PAGE
    # The nearest one first: memory before SMEM may look like a part of it.
    marks = list(_partitions_before(memory, table))
    for offset in rows:
        for mark in marks:
            start = mark - offset
            if start >= 0 and end - start <= MAX_SMEM_BYTES:
                yield Range(start, end - start)


def _start(memory: Memory, region: Range) -> bytes:
    try:
        return memory.read(region.start, min(region.size, _PAGE))
    except NotCapturedError:
        return b""


def _partitions_before(memory: Memory, table: int) -> Iterator[int]:
    for at in range(table - _PAGE, max(table - MAX_SMEM_BYTES, -1), -_PAGE):
        try:
            if memory.read(at, len(_PARTITION)) == _PARTITION:
                yield at
        except NotCapturedError:
            return


def _rows(page: bytes) -> list[int]:
    (count,) = struct.unpack_from("<I", page, 8)
    rows = [struct.unpack_from("<II", page, 32 + 48 * i) for i in range(min(count, 84))]
    return [offset for offset, size in rows if offset and size and offset % _PAGE == 0]


def _accepted(memory: Memory, where: Range, source: str) -> bool:
    try:
        data = memory.read(where.start, where.size)
        parse_smem(data, source, address=where.start)
    except (FormatError, NotCapturedError):
        return False
    return True
