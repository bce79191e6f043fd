# SPDX-License-Identifier: GPL-2.0-or-later
"""
The ``minidump`` backend: Qualcomm's boot firmware copies the regions.

Item 602 of SMEM leads to their table. Another owner (a driver in the kernel) may share
the table; its rows do not change.

Names and numbers are those of the kernel's kmemdump series, so that its readers read
our dumps, too.
"""

from __future__ import annotations

import struct

from kmemdump.backends import ELF_HEADER_ID, VMCOREINFO_ID
from kmemdump.backends.elf_header_region import row_name
from kmemdump.backends.minidump_region_array import RegionTable
from kmemdump.backends.minidump_scratch import Scratch
from kmemdump.errors import BackendError, FormatError, NotCapturedError
from kmemdump.formats.elfheader import parse_header_region
from kmemdump.formats.minidump import (
    LINUX_ROWS,
    MINIDUMP_ITEM,
    REGION_SIZE,
    TOC_SIZE,
    GlobalToc,
    Subsystem,
    TableRegion,
    Word,
    pack_subsystem,
    parse_regions,
    parse_toc,
    region_array_size,
)
from kmemdump.formats.smem import HOST_ANY, Smem, parse_smem
from kmemdump.memory.physical import Memory, WritableMemory
from kmemdump.memory.ranges import Range, Region, round_up

__all__ = ["MinidumpBackend", "is_marked"]

_4G = 1 << 32


class MinidumpBackend:
    """
    Holds regions in the minidump table of one machine.

    :param memory: The machine's memory; stays the caller's.
    :param smem: The range of SMEM; see :func:`kmemdump.firmware.smem_search.find_smem`.
    :param scratch: Physically contiguous, unused memory for the ELF header, VMCOREINFO
        and, if there is none yet, the region array.
    :param scratch_item: Instead of *scratch*: number of an SMEM item of 64 KiB to
        allocate. No other processor may allocate at the same time.
    :param no_encryption: Ask the firmware not to encrypt the dump. Then anyone with the
        device can read it; otherwise perhaps only the vendor can.
    :raises BackendError: If the table is not ready or full.
    """

    name = "minidump"
    alignment = 4

    def __init__(
        self,
        memory: WritableMemory,
        smem: Range,
        *,
        scratch: Range | None = None,
        scratch_item: int | None = None,
        no_encryption: bool = False,
    ) -> None:
        self._memory = memory
        self._ids: list[int] = []  # Of our rows, in their order.
        self._own: int | None = None  # The subsystem's row, if we made its table.
        try:
            if smem.end > _4G:
                raise BackendError(
                    f"SMEM at {smem}, expected below 4 GiB: Linux's driver and the "
                    "firmware compute with 32 bits"
                )
            area = _read_smem(memory, smem)
            if scratch is None and scratch_item is not None:
                scratch = self._allocate(area, scratch_item)
            self._scratch = Scratch(memory, scratch) if scratch else None
            self._open_table(area, no_encryption)
        except (FormatError, NotCapturedError) as error:
            raise BackendError(f"no usable minidump table: {error}") from error

    @property
    def capacity(self) -> int:
        return self._table.capacity

    def register(self, region: Region) -> None:
        if region.id in self._ids:
            raise BackendError(f"id {region.id} is already used")
        if region.size <= 0:
            raise BackendError(f"{region.name} has no bytes")
        self._table.append(_row(region))
        self._ids.append(region.id)

    def unregister(self, region: Region) -> None:
        if region.id not in self._ids:
            raise BackendError(f"id {region.id} is not registered")
        index = self._ids.index(region.id)
        self._table.remove(index)
        del self._ids[index]

    def withdraw(self) -> None:
        """
        Remove all our rows, including those of an earlier run.

        A table that we made is disabled, which restores the state before it.
        """
        for region_id in reversed(self._ids):
            self._table.remove(self._ids.index(region_id))
        self._ids.clear()
        if self._own is not None:
            self._memory.write(self._own + _ENABLED_AT, _word(Word.DSBL))
            self._memory.write(self._own, _word(0))

    def describe(self, header: bytes, vmcoreinfo: bytes) -> tuple[Region, Region]:
        if self._scratch is None:
            raise BackendError(
                "no scratch memory for the ELF header: the dump cannot describe itself"
            )
        # Both are written to memory that no row points to yet.
        text = self._scratch.place("vmcoreinfo", vmcoreinfo)
        table = self._scratch.place("header", header)
        first = Region(ELF_HEADER_ID, "elfhdr", table.start, table.size)
        second = Region(VMCOREINFO_ID, "vmcoreinfo", text.start, text.size)
        for region in (second, first) if self._ids else (first, second):
            if region.id in self._ids:
                row = _row(region)
                self._table.move(self._ids.index(region.id), row.address, row.size)
            else:
                self.register(region)
        self._scratch.commit()
        return first, second

    def _allocate(self, smem: Smem, number: int) -> Range:
        try:
            item = smem.lookup(HOST_ANY, number)  # Of an earlier run.
        except FormatError:
            plan = smem.allocate(HOST_ANY, number, _SCRATCH_SIZE)
            for address, data in plan.stores:
                self._memory.write(address, data)
            item = plan.item
        return Range(item.address, item.size)

    def _open_table(self, smem: Smem, no_encryption: bool) -> None:
        toc, address, source = _read_toc(self._memory, smem)
        if toc.status == 0:
            raise BackendError(
                f"{source}: status 0: firmware is not ready for minidumps"
            )
        row = toc.subsystems[0]  # Linux's.
        address += TOC_SIZE
        array = self._scratch.array if self._scratch else None
        if row.initialized and row.regions_address != array:
            self._share(row, address, source)
            if no_encryption:
                self._memory.write(address + _REQUIRED_AT, _word(Word.NR))
                self._memory.write(address + _STATUS_AT, _word(Word.DONE))
        else:
            self._initialize(address, no_encryption, source)

    def _share(self, row: Subsystem, address: int, source: str) -> None:
        """Add our rows behind those of another owner."""
        if row.enabled != Word.ENBL:
            raise BackendError(
                f"{source}: its owner has not enabled it ({row.enabled:#010x})"
            )
        size = region_array_size(row, source)
        data = self._memory.read(row.regions_address, size)
        others = parse_regions(data, row.region_count, source)
        kept = len(others) - self._count_left_behind(others)
        if kept >= LINUX_ROWS:
            raise BackendError(f"{source}: full: others have all {kept} rows")
        if kept < len(others):
            self._memory.write(address + _COUNT_AT, _word(kept))
        self._table = RegionTable(
            self._memory, address, row.regions_address, kept, LINUX_ROWS
        )

    def _count_left_behind(self, rows: list[TableRegion]) -> int:
        """
        Count the last rows that an earlier run of kmemdump left.

        The first of them has the ELF header in our scratch memory, which lists the
        others.
        """
        scratch = self._scratch
        for i, row in enumerate(rows):
            if scratch is None or not scratch.holds(row.address, row.size):
                continue
            try:
                header = parse_header_region(
                    self._memory.read(row.address, row.size), row.name
                )
            except (FormatError, NotCapturedError):
                return 0
            known = {(entry.paddr, round_up(entry.size, 4)) for entry in header.entries}
            ours = all(
                scratch.holds(it.address, it.size) or (it.address, it.size) in known
                for it in rows[i:]
            )
            return len(rows) - i if ours else 0
        return 0

    def _initialize(self, address: int, no_encryption: bool, source: str) -> None:
        """Make a table if there is none."""
        if self._scratch is None or self._scratch.size < LINUX_ROWS * REGION_SIZE:
            raise BackendError(
                f"{source}: there is no region array, and no scratch memory of "
                f"{LINUX_ROWS * REGION_SIZE} bytes or more for one\n"
                "give reserved memory with --scratch ADDRESS:SIZE, or allocate an item "
                "of SMEM with --scratch-item NUMBER"
            )
        array = self._scratch.reserve_array(LINUX_ROWS * REGION_SIZE)
        self._own = address
        status, required = Word.NONE, Word.YES
        if no_encryption:
            status, required = Word.DONE, Word.NR
        row = Subsystem(0, Word.DSBL, status, required, 0, array)
        # Not marked as initialised before it is complete.
        self._memory.write(address, _word(0))
        self._memory.write(address + _COUNT_AT, _word(0))
        self._memory.write(array, bytes(LINUX_ROWS * REGION_SIZE))
        self._memory.write(address, pack_subsystem(row))
        self._memory.write(address + _ENABLED_AT, _word(Word.ENBL))
        self._memory.write(address, _word(1))
        self._table = RegionTable(self._memory, address, array, 0, LINUX_ROWS)


def is_marked(memory: Memory, smem: Range) -> bool:
    """
    Return whether Linux's minidump table has an owner already.

    :raises FormatError: If there is no such table.
    """
    toc, _, _ = _read_toc(memory, _read_smem(memory, smem))
    return toc.subsystems[0].initialized


def _read_smem(memory: Memory, where: Range) -> Smem:
    data = memory.read(where.start, where.size)
    return parse_smem(data, f"SMEM at {where.start:#x}", address=where.start)


def _read_toc(memory: Memory, smem: Smem) -> tuple[GlobalToc, int, str]:
    """Return the table of all subsystems, its address, and its name for messages."""
    item = smem.lookup(HOST_ANY, MINIDUMP_ITEM)
    source = f"minidump table at {item.address:#x}"
    return parse_toc(memory.read(item.address, item.size), source), item.address, source


_SCRATCH_SIZE = 64 << 10
# Offsets in struct minidump_subsystem.
_ENABLED_AT = 4
_STATUS_AT = 8
_REQUIRED_AT = 12
_COUNT_AT = 16


def _word(value: int) -> bytes:
    return struct.pack("<I", value)


def _row(region: Region) -> TableRegion:
    return TableRegion(
        row_name(region),
        region.id,
        Word.VALI,
        region.address,
        round_up(region.size, 4),  # As Linux's driver does: firmware copies words.
    )
