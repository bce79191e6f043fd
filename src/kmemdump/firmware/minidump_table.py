# SPDX-License-Identifier: GPL-2.0-or-later
"""Read the minidump table in a machine's memory: what firmware would dump or refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kmemdump.errors import FormatError
from kmemdump.formats.minidump import (
    ALL_ROWS,
    LINUX_ROWS,
    MINIDUMP_ITEM,
    GlobalToc,
    Subsystem,
    TableRegion,
    check_regions,
    parse_old_table,
    parse_regions,
    parse_toc,
    region_array_size,
    row_label,
)
from kmemdump.formats.smem import HOST_ANY, MAX_SMEM_BYTES, parse_smem
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import ADDRESS_SPACE, Range, subtract

__all__ = ["MinidumpTable", "read_table"]


class MinidumpTable(NamedTuple):
    """A subsystem's part of the minidump table."""

    source: str
    toc: GlobalToc | None
    """``None`` in the oldest layout."""
    subsystem: Subsystem | None
    regions: tuple[TableRegion, ...]
    row_problems: tuple[tuple[str, ...], ...]
    """For each region: why firmware would refuse it or dump it badly."""
    own_problems: tuple[str, ...] = ()
    """Problems of the table as a whole."""

    @property
    def problems(self) -> tuple[str, ...]:
        """All problems, one line each."""
        lines = list(self.own_problems)
        for i, texts in enumerate(self.row_problems):
            lines += [f"{row_label(i, self.regions[i])} {text}" for text in texts]
        return tuple(lines)


def read_table(
    memory: Memory, smem: Range, source: str = "memory", *, subsystem: int = 0
) -> MinidumpTable:
    """
    Read the current table.

    :param smem: The range of SMEM.
    :param subsystem: Number of the processor; 0 is Linux's.
    :raises FormatError: If there is no table, or a broken one.
    :raises NotCapturedError: If it points out of the memory.
    """
    if smem.size > MAX_SMEM_BYTES:
        raise FormatError(
            source, f"SMEM of {smem.size} bytes, expected at most {MAX_SMEM_BYTES}"
        )
    found = parse_smem(
        memory.read(smem.start, smem.size),
        f"{source}: SMEM at {smem.start:#x}",
        address=smem.start,
    )
    item = found.lookup(HOST_ANY, MINIDUMP_ITEM)
    where = f"{source}: minidump table at {item.address:#x}"
    data = memory.read(item.address, item.size)
    old = _read_old(data, where)
    if old is not None:
        return MinidumpTable(where, None, None, old, _row_problems(memory, old))
    toc = parse_toc(data, where)
    if not 0 <= subsystem < len(toc.subsystems):
        raise FormatError(
            where, f"no subsystem {subsystem}, it has {len(toc.subsystems)}"
        )
    row = toc.subsystems[subsystem]
    problems = _own_problems(toc, row)
    regions: list[TableRegion] = []
    if row.initialized:
        size = region_array_size(row, where)
        raw = memory.read(row.regions_address, size) if size else b""
        regions = parse_regions(raw, row.region_count, where)
        problems += _count_problems(toc, regions)
    checked = _row_problems(memory, regions)
    return MinidumpTable(where, toc, row, tuple(regions), checked, tuple(problems))


def _read_old(data: bytes, where: str) -> tuple[TableRegion, ...] | None:
    try:
        old = parse_old_table(data, where)
    except FormatError:
        return None
    # In the later layout, these bytes are a revision and a word for "enabled".
    if old.smem_length != len(data) or not old.regions:
        return None
    return old.regions


def _row_problems(
    memory: Memory, regions: Sequence[TableRegion]
) -> tuple[tuple[str, ...], ...]:
    found = check_regions(regions)
    for region, problems in zip(regions, found, strict=True):
        end = region.address + region.size
        if region.is_valid and region.size and end <= ADDRESS_SPACE:
            whole = Range(region.address, region.size)
            outside = subtract([whole], memory.ranges)
            if outside:
                count = sum(item.size for item in outside)
                problems.append(
                    f"points out of the machine's memory: {count} of {region.size} "
                    f"bytes, from {outside[0].start:#x} on"
                )
    return tuple(map(tuple, found))


def _count_problems(toc: GlobalToc, regions: Sequence[TableRegion]) -> list[str]:
    problems = []
    if len(regions) > LINUX_ROWS:
        problems.append(
            f"{len(regions)} rows: much firmware takes only the first {LINUX_ROWS}"
        )
    total = sum(row.region_count for row in toc.subsystems if row.initialized)
    if total > ALL_ROWS:
        problems.append(
            f"{total} rows of all subsystems together: old firmware takes {ALL_ROWS}"
        )
    if not any(row.is_valid and row.name.startswith("KELF") for row in regions):
        problems.append(
            "no row is an ELF header (KELF): qdl makes no core of such a dump"
        )
    return problems


def _own_problems(toc: GlobalToc, row: Subsystem) -> list[str]:
    problems = []
    if toc.status == 0:
        problems.append("the table's status is 0: firmware is not ready for minidumps")
    if not row.initialized:
        problems.append("the subsystem has not initialised its part of the table")
    elif not row.is_enabled:
        problems.append(f"the subsystem is not enabled ({row.enabled:#010x})")
    if not row.is_plain:
        problems.append("firmware may encrypt the dump, or refuse it")
    return problems
