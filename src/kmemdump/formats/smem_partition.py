# SPDX-License-Identifier: GPL-2.0-or-later
"""
A partition of Qualcomm SMEM: two lists of items that grow towards each other.

Uncached items go up from the partition's header, each after its own header; cached ones
go down from the end, each below its own header.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kmemdump.errors import FormatError

__all__ = ["Partition", "PartitionRow", "SmemEntry"]

_HEADER = struct.Struct("<4sHHIII12x")  # struct smem_partition_header
_FREE_UNCACHED_AT = 12
_ENTRY = struct.Struct("<HHIHHI")  # struct smem_private_entry
_CANARY = 0xA5A5
PartitionRow = tuple[int, int, int, int, int]
"""A row of the partition table: offset, size, both hosts, cache line."""
_MAX_ENTRIES = 1 << 16  # Numbers of items have 16 bits.


@dataclass(frozen=True, slots=True)
class SmemEntry:
    """An item in a partition."""

    item: int
    offset: int
    """Offset of its data in the region in bytes."""
    stored: int
    """Size of its data with padding."""
    padding: int

    @property
    def size(self) -> int:
        """Size of its data in bytes."""
        return self.stored - self.padding


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition whose header agrees with the partition table."""

    where: str
    host0: int
    host1: int
    start: int
    """Offset in the region in bytes."""
    size: int
    free_uncached: int
    """End of the uncached items, from the start of the partition."""
    free_cached: int
    """Low end of the cached items, from the start of the partition."""
    cacheline: int
    """Alignment of cached items."""

    @classmethod
    def parse(cls, data: bytes, row: PartitionRow, source: str) -> Partition:
        """
        Parse the header of the partition of a *row* of the table.

        :raises FormatError: If it does not agree with the row.
        """
        offset, size, host0, host1, cacheline = row
        where = f"{source}+{offset:#x}"
        if offset + size > len(data) or size < _HEADER.size:
            raise FormatError(
                where,
                f"partition of {size:#x} bytes, expected {_HEADER.size} or more, all "
                f"in the region's {len(data):#x}",
            )
        magic, found0, found1, found_size, uncached, cached = _HEADER.unpack_from(
            data, offset
        )
        if magic != b"$PRT":
            raise FormatError(
                where,
                f"starts with {magic.hex(' ')}, expected 24 50 52 54 ($PRT) (-EINVAL)",
            )
        for name, found, expected in (
            ("host0", found0, host0),
            ("host1", found1, host1),
            ("size", found_size, size),
        ):
            if found != expected:
                raise FormatError(
                    where,
                    f"{name} is {found:#x}, expected {expected:#x} as in the table "
                    "(-EINVAL)",
                )
        if uncached > size:
            raise FormatError(
                where,
                f"uncached items end at {uncached:#x}, expected at most {size:#x} "
                "(-EINVAL)",
            )
        return cls(where, host0, host1, offset, size, uncached, cached, cacheline)

    @property
    def hosts(self) -> str:
        """Both hosts, as the driver prints them."""
        return f"{self.host0}:{self.host1}"

    @property
    def end(self) -> int:
        """Offset in the region in bytes."""
        return self.start + self.size

    def entries(self, data: bytes) -> Iterator[SmemEntry]:
        """
        Walk the items, the uncached ones first.

        :raises FormatError: Where a list is damaged.
        """
        yield from self._limited(self._walk_uncached(data))
        yield from self._limited(self._walk_cached(data))

    def check(self, entry: SmemEntry) -> None:
        """
        Check that the data of *entry* is in the partition.

        :raises FormatError: If it is not.
        """
        inside = self.start <= entry.offset and entry.offset + entry.size <= self.end
        if entry.stored > self.size or entry.padding > entry.stored or not inside:
            raise FormatError(
                f"{self.where}: item {entry.item}",
                f"{entry.stored:#x} bytes with {entry.padding:#x} of padding at "
                f"{entry.offset - self.start:#x}, expected it in the partition's "
                f"{self.size:#x} (-EINVAL)",
            )

    def allocate(
        self, data: bytes, number: int, size: int
    ) -> tuple[SmemEntry, tuple[tuple[int, bytes], ...]]:
        """
        Plan a new uncached item.

        :return: The item; offset in the region and bytes of each store.
        :raises FormatError: If the item exists, or there is no room.
        """
        at = self.start + _HEADER.size
        for entry in self._limited(self._walk_uncached(data)):
            if entry.item == number:
                raise FormatError(
                    f"{self.where}: item {number}", "is already allocated (-EEXIST)"
                )
            at = entry.offset + entry.stored
        if at != self.start + self.free_uncached:
            raise FormatError(
                self.where,
                f"uncached items end at {at - self.start:#x}, expected "
                f"{self.free_uncached:#x}",
            )
        stored = (size + 7) & ~7
        end = at - self.start + _ENTRY.size + stored
        if end > min(self.free_cached, self.size):
            raise FormatError(
                f"{self.where}: item {number}",
                f"would end at {end:#x}, but the cached items start at "
                f"{self.free_cached:#x} (-ENOSPC)",
            )
        header = _ENTRY.pack(_CANARY, number, stored, stored - size, 0, 0)
        stores = (
            (at, header),
            (self.start + _FREE_UNCACHED_AT, struct.pack("<I", end)),
        )
        entry = SmemEntry(number, at + _ENTRY.size, stored, stored - size)
        return entry, stores

    def _limited(self, entries: Iterator[SmemEntry]) -> Iterator[SmemEntry]:
        for count, entry in enumerate(entries):
            if count == _MAX_ENTRIES:
                raise FormatError(self.where, f"more than {_MAX_ENTRIES} items")
            yield entry

    def _walk_uncached(self, data: bytes) -> Iterator[SmemEntry]:
        at = self.start + _HEADER.size
        end = self.start + self.free_uncached
        while at < end:
            item, stored, padding, padding_header = self._header(data, at)
            offset = at + _ENTRY.size + padding_header
            yield SmemEntry(item, offset, stored, padding)
            at = offset + stored
        if at > self.end:
            raise FormatError(
                f"{self.where}+{at - self.start:#x}",
                f"an uncached item ends there, expected at most {self.size:#x} "
                "(-EINVAL)",
            )

    def _walk_cached(self, data: bytes) -> Iterator[SmemEntry]:
        if self.free_cached > self.size:
            raise FormatError(
                self.where,
                f"cached items end at {self.free_cached:#x}, expected at most "
                f"{self.size:#x} (-EINVAL)",
            )
        # The kernel's ALIGN(): 0 for a cache line of 0.
        step = (_ENTRY.size + self.cacheline - 1) & ~(self.cacheline - 1)
        at = self.end - step
        end = self.start + self.free_cached
        while at > end:
            item, stored, padding, _ = self._header(data, at)
            yield SmemEntry(item, at - stored, stored, padding)
            if stored + step == 0:
                raise FormatError(
                    f"{self.where}+{at - self.start:#x}",
                    "an empty cached item in a partition without a cache line: the "
                    "list has no end",
                )
            at -= stored + step
        if at < self.start:
            raise FormatError(
                self.where, "cached items begin before the partition (-EINVAL)"
            )

    def _header(self, data: bytes, at: int) -> tuple[int, int, int, int]:
        where = f"{self.where}+{at - self.start:#x}"
        if not self.start <= at <= self.end - _ENTRY.size:
            raise FormatError(
                where,
                f"item header outside of the partition's {self.size:#x} (-EINVAL)",
            )
        canary, item, stored, padding, padding_header, _ = _ENTRY.unpack_from(data, at)
        if canary != _CANARY:
            raise FormatError(
                where, f"canary is {canary:#06x}, expected 0xa5a5 (-EINVAL)"
            )
        return item, stored, padding, padding_header
