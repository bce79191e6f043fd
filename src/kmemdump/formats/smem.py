# SPDX-License-Identifier: GPL-2.0-or-later
"""
Qualcomm SMEM: memory that the processors of a chip share, and its items.

Layout and rules are those of Linux ``drivers/soc/qcom/smem.c``: that driver's refusals
are errors here, with its error number at the end of the message. In addition, nothing
may lead out of the region, which the driver does not check everywhere.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from kmemdump.errors import FormatError
from kmemdump.formats.smem_partition import Partition, SmemEntry
from kmemdump.formats.smem_table import (
    PTABLE_SIZE,
    find_private,
    find_shared,
    parse_ptable,
)

__all__ = [
    "HOST_ANY",
    "MAX_SMEM_BYTES",
    "Allocation",
    "Item",
    "Smem",
    "is_smem_start",
    "parse_smem",
]

HOST_ANY = -1
"""Items for all processors: ``QCOM_SMEM_HOST_ANY``."""
MAX_SMEM_BYTES = 64 << 20
"""Largest region in bytes that is parsed; phones have 2 to 4 MiB."""

_HEAP_ITEMS = 512
_FIXED_ITEMS = 8  # SMEM_ITEM_LAST_FIXED
_AUX_BASE_MASK = 0xFFFFFFFC

# struct smem_header without its toc[]: proc_comm[4], version[32], initialized,
# free_offset, available, reserved.
_HEADER = struct.Struct("<64x28xI96xIIII")
_FREE_OFFSET_AT, _AVAILABLE_AT = 0xC4, 0xC8
_TOC_ROW = struct.Struct("<IIII")  # struct smem_global_entry
_HEADER_SIZE = _HEADER.size + _HEAP_ITEMS * _TOC_ROW.size
_MIN_SIZE = _HEADER_SIZE + PTABLE_SIZE

_VERSION_HEAP = 11
_VERSION_PARTITION = 12


@dataclass(frozen=True, slots=True)
class Item:
    """An item that was looked up or allocated."""

    number: int
    address: int
    """Physical address of its data in bytes."""
    size: int
    """Size of its data in bytes."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """The stores that make a new item, in order."""

    item: Item
    stores: tuple[tuple[int, bytes], ...]
    """Physical address and bytes of each store."""


@dataclass(frozen=True, slots=True)
class Smem:
    """An SMEM region that the driver would accept."""

    source: str
    """Where it was found, for messages."""
    address: int
    """Physical address of the region in bytes."""
    data: bytes = field(repr=False)
    version: int
    """11: items are in a heap; 12: in partitions."""
    limit: int
    """Items have lower numbers than this."""
    partitions: Mapping[int, Partition]
    """Remote host to the partition that is shared with it."""
    shared: Partition | None
    """The partition of all hosts, from version 12 on."""
    auxiliary: Mapping[int, int] = field(default_factory=dict)
    """Further regions that the heap may refer to: physical address to size."""

    def lookup(self, host: int, number: int) -> Item:
        """
        Find an item as ``qcom_smem_get()`` does.

        :param host: Remote processor, or :data:`HOST_ANY`.
        :raises FormatError: If there is no such item, or the way to it is damaged.
        """
        where = f"{self.source}: item {number}"
        self._check_number(number, where)
        partition = self._partition(host)
        if partition is None:
            return self._lookup_heap(number, where)
        for entry in partition.entries(self.data):
            if entry.item == number:
                partition.check(entry)
                return self._item(entry)
        raise FormatError(
            where, f"is not in partition {partition.hosts}, expected it there (-ENOENT)"
        )

    def allocate(self, host: int, number: int, size: int) -> Allocation:
        """
        Plan a new item with the stores of ``qcom_smem_alloc()``, in the same order.

        The driver holds a hardware lock meanwhile. So the plan may only be carried out
        while no other processor allocates.

        :param size: In bytes.
        :raises FormatError: If the number is taken or not allowed, or there is no room.
        """
        where = f"{self.source}: item {number}"
        if number < _FIXED_ITEMS:
            raise FormatError(
                where, f"is fixed, expected {_FIXED_ITEMS} or more (-EINVAL)"
            )
        self._check_number(number, where)
        if not 0 < size < 1 << 32:
            raise FormatError(where, f"{size} bytes wanted, expected 1 or more")
        partition = self._partition(host)
        if partition is None:
            return self._allocate_heap(number, size, where)
        entry, stores = partition.allocate(self.data, number, size)
        return Allocation(
            self._item(entry),
            tuple((self.address + offset, data) for offset, data in stores),
        )

    def _check_number(self, number: int, where: str) -> None:
        if not 0 <= number < self.limit:
            raise FormatError(
                where,
                f"expected a number below {self.limit} (version "
                f"{self.version}) (-EINVAL)",
            )

    def _partition(self, host: int) -> Partition | None:
        # The driver does not fall back from a host's own partition to the shared one.
        return self.partitions.get(host, self.shared)

    def _item(self, entry: SmemEntry) -> Item:
        return Item(entry.item, self.address + entry.offset, entry.size)

    def _toc(self, number: int) -> tuple[int, int, int, int]:
        at = _HEADER.size + number * _TOC_ROW.size
        row: tuple[int, int, int, int] = _TOC_ROW.unpack_from(self.data, at)
        return row

    def _lookup_heap(self, number: int, where: str) -> Item:
        allocated, offset, size, aux = self._toc(number)
        if not allocated:
            raise FormatError(where, "is not allocated in the heap (-ENXIO)")
        base, room = self.address, len(self.data)
        aux &= _AUX_BASE_MASK
        if aux not in (0, base & 0xFFFFFFFF):
            known = [it for it in self.auxiliary if it & 0xFFFFFFFF == aux]
            if not known:
                raise FormatError(
                    where, f"is in a region at {aux:#x}, which is not known (-ENOENT)"
                )
            base, room = known[0], self.auxiliary[known[0]]
        if offset + size > room:
            raise FormatError(
                where,
                f"{size:#x} bytes at {offset:#x} end past the region's {room:#x} "
                "(-EINVAL)",
            )
        return Item(number, base + offset, size)

    def _allocate_heap(self, number: int, size: int, where: str) -> Allocation:
        if self._toc(number)[0]:
            raise FormatError(where, "is already allocated (-EEXIST)")
        _, _, free, available, _ = _HEADER.unpack_from(self.data)
        size = (size + 7) & ~7
        if size > available:
            raise FormatError(
                where, f"{size} bytes wanted, and the heap has {available} (-ENOMEM)"
            )
        if free < _HEADER_SIZE or free + size > len(self.data):
            raise FormatError(where, f"the heap's free offset {free:#x} is wrong")
        row = _HEADER.size + number * _TOC_ROW.size
        stores = (
            (row + 4, struct.pack("<II", free, size)),
            (row, struct.pack("<I", 1)),
            (_FREE_OFFSET_AT, struct.pack("<I", free + size)),
            (_AVAILABLE_AT, struct.pack("<I", available - size)),
        )
        return Allocation(
            Item(number, self.address + free, size),
            tuple((self.address + offset, data) for offset, data in stores),
        )


def is_smem_start(data: bytes) -> bool:
    """Return whether bytes may be the start of an SMEM region of version 12."""
    if len(data) < _HEADER.size:
        return False
    word, initialized, _, _, reserved = _HEADER.unpack_from(data)
    return word >> 16 == _VERSION_PARTITION and (initialized, reserved) == (1, 0)


def parse_smem(
    data: bytes,
    source: str,
    *,
    address: int = 0,
    auxiliary: Mapping[int, int] | None = None,
) -> Smem:
    """
    Parse an SMEM region, as the driver does when it probes.

    :param data: The whole region.
    :param source: Where it was found, for messages.
    :param address: Physical address of the region in bytes.
    :param auxiliary: Physical address and size of further regions.
    :raises FormatError: If the driver would refuse it, or would crash on it.
    """
    if not _MIN_SIZE <= len(data) <= MAX_SMEM_BYTES:
        raise FormatError(
            source,
            f"{len(data)} bytes, expected an SMEM region of {_MIN_SIZE} "
            f"to {MAX_SMEM_BYTES}",
        )
    word, initialized, _, _, reserved = _HEADER.unpack_from(data)
    if initialized != 1 or reserved != 0:
        raise FormatError(
            f"{source}+0xc0",
            f"initialized is {initialized:#x} and reserved {reserved:#x}, expected 1 "
            "and 0: no SMEM, or the boot loader has not made it (-EINVAL)",
        )
    version = word >> 16
    limit, shared = _HEAP_ITEMS, None
    if version not in (_VERSION_HEAP, _VERSION_PARTITION):
        raise FormatError(
            f"{source}+0x5c",
            f"SMEM version {word:#x}, expected {_VERSION_HEAP} or "
            f"{_VERSION_PARTITION} in its upper half (-EINVAL)",
        )
    rows, info = parse_ptable(data, source, required=version == _VERSION_PARTITION)
    if version == _VERSION_PARTITION:
        shared = find_shared(data, rows, source)
        limit = _HEAP_ITEMS if info is None else info
    partitions = find_private(data, rows, source)
    return Smem(
        source, address, data, version, limit, partitions, shared, dict(auxiliary or {})
    )
