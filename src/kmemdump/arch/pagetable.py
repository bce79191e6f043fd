# SPDX-License-Identifier: GPL-2.0-or-later
"""
The virtual addresses of physical memory, from a kernel's own page table.

A page may have several: in the direct map, in the kernel's image, in vmalloc's area.
The direct map is linear and by far the largest; it is one alias, and never walked.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from kmemdump.errors import NotCapturedError
from kmemdump.memory.ranges import Alias, Range, merge

__all__ = ["PageTable", "read_virtual", "translate", "walk"]

logger = logging.getLogger(__name__)

MAX_TABLES = 1 << 16
"""Most tables that are read: 256 MiB of them."""
MAX_ALIASES = 1 << 20
"""Most aliases that are found, before they are clipped to captured memory."""


class PageTable(NamedTuple):
    """A kernel's page table, and how to read it."""

    root: int
    """Physical address of the top table."""
    base: int
    """Virtual address of the top table's entry 0."""
    first: int
    """First entry of the top table that maps the kernel."""
    shifts: tuple[int, ...]
    """Binary logarithm of the bytes that an entry maps, for each level from the top."""
    leaf_shifts: frozenset[int]
    """Those of *shifts* at which an entry may map memory instead of a table."""
    entries: int
    """Entries of a table, each of 8 bytes."""
    present: int
    """Bit of a valid entry."""
    page: int
    """Bits that are all set in a valid entry of the last level."""
    leaf: tuple[int, int]
    """Mask and value of an entry above the last level that maps memory."""
    address: int
    """Mask of the physical address in an entry."""
    high: tuple[int, int] = (0, 0)
    """Mask of further bits of the address, and how far they are shifted to the left."""
    root_entries: int | None = None
    """Entries of the top table, if there are fewer."""


def translate(
    table: PageTable, read: Callable[[int, int], bytes], virtual: int
) -> int | None:
    """
    Translate a virtual address of the kernel.

    :param read: Reads (physical address, size).
    :return: Physical address; None if *virtual* is not mapped.
    :raises NotCapturedError: If a table cannot be read.
    """
    address = table.root
    for level, shift in enumerate(table.shifts):
        last = level == len(table.shifts) - 1
        index = (virtual >> shift) % _entries(table, level)
        entry = int.from_bytes(read(address + 8 * index, 8), "little")
        valid = table.page if last else table.present
        if entry & valid != valid:
            return None
        address = _address(table, entry)
        mask, value = (0, 0) if last else table.leaf
        if entry & mask == value:
            if shift not in table.leaf_shifts:  # Reserved: the table is corrupt.
                return None
            span = 1 << shift
            return (address & -span) + virtual % span
    return None


def read_virtual(
    table: PageTable, read: Callable[[int, int], bytes], virtual: int, size: int
) -> bytes:
    """
    Read memory of the kernel at a virtual address.

    :param read: Reads (physical address, size).
    :raises NotCapturedError: If a part of it is not mapped, or cannot be read.
    """
    page = 1 << table.shifts[-1]
    pieces = []
    end = virtual + size
    while virtual < end:
        count = min(end - virtual, page - virtual % page)
        physical = translate(table, read, virtual)
        if physical is None:
            raise NotCapturedError(f"{virtual:#x} is not mapped")
        pieces.append(read(physical, count))
        virtual += count
    return b"".join(pieces)


def walk(
    table: PageTable,
    read: Callable[[int, int], bytes],
    skip: Sequence[Range] = (),
) -> Iterator[Alias]:
    """
    Yield the aliases that a page table maps, sorted by virtual address and merged.

    Every table is read once per level, at the first virtual address at which it is
    found. So a corrupt table cannot loop, and shared tables are not repeated: the
    kernel maps terabytes of KASAN's shadow to one page (``kasan_early_shadow_page``).

    :param read: Reads (physical address, size); a table for which it raises
        :exc:`NotCapturedError` is skipped.
    :param skip: Ranges of virtual addresses to leave out, the direct map.
    """
    skipped = [(item.start, item.end) for item in merge(skip)]
    leaves: list[tuple[int, int, int]] = []
    tables = [(table.root, table.base)]
    tables_read = 0
    for level, shift in enumerate(table.shifts):
        # The lower half of the top table belongs to the user.
        first = table.first if level == 0 else 0
        last = level == len(table.shifts) - 1
        leaf_mask, leaf_value = (0, 0) if last else table.leaf
        may_be_leaf = shift in table.leaf_shifts
        span = 1 << shift
        valid = table.page if last else table.present
        entries = struct.Struct(f"<{_entries(table, level)}Q")
        below: list[tuple[int, int]] = []
        seen: set[int] = set()
        for address, base in tables:
            if address in seen:
                continue
            if tables_read == MAX_TABLES or len(leaves) > MAX_ALIASES:
                logger.warning(
                    "page table at %#x: stopped after %d tables and %d mappings",
                    *(table.root, tables_read, len(leaves)),
                )
                below.clear()
                break
            seen.add(address)
            try:
                data = read(address, entries.size)
            except NotCapturedError:
                continue
            tables_read += 1
            for i, entry in enumerate(entries.unpack(data)[first:], first):
                if entry & valid != valid:
                    continue
                virtual = base + (i << shift)
                if any(a <= virtual and virtual + span <= b for a, b in skipped):
                    continue
                physical = _address(table, entry)
                if entry & leaf_mask != leaf_value:
                    below.append((physical, virtual))
                elif may_be_leaf:  # Else reserved: the table is corrupt.
                    leaves.append((virtual, physical & -span, span))
        tables = below
    leaves.sort()
    return _merged(leaves)


def _address(table: PageTable, entry: int) -> int:
    mask, shift = table.high
    return entry & table.address | (entry & mask) << shift


def _entries(table: PageTable, level: int) -> int:
    if level == 0 and table.root_entries is not None:
        return table.root_entries
    return table.entries


def _merged(leaves: list[tuple[int, int, int]]) -> Iterator[Alias]:
    start = physical = size = 0
    for virtual, address, span in leaves:
        if size and virtual == start + size and address == physical + size:
            size += span
            continue
        if size:
            yield Alias(start, physical, size)
        start, physical, size = virtual, address, span
    if size:
        yield Alias(start, physical, size)
