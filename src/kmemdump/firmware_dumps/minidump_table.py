# SPDX-License-Identifier: GPL-2.0-or-later
"""What firmware would have dumped of a machine's memory, by its minidump table."""

from __future__ import annotations

from kmemdump.errors import TargetError
from kmemdump.firmware.minidump_table import read_table
from kmemdump.firmware_dumps.assemble import Collected, assemble
from kmemdump.firmware_dumps.fragments import MemoryStore, Piece
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Range, intersect

__all__ = ["collect_table"]


def collect_table(
    memory: Memory, smem: Range, source: str = "memory", *, subsystem: int = 0
) -> Collected:
    """
    Put together what firmware would have dumped.

    :param memory: Stays the caller's, and open as long as the result is used.
    :raises TargetError: If the table has no regions.
    """
    table = read_table(memory, smem, source, subsystem=subsystem)
    pieces = []
    for region in table.regions:
        if not region.is_valid or region.address + region.size > 1 << 64:
            continue
        whole = Range(region.address, region.size)
        for part in intersect([whole], memory.ranges):
            store = MemoryStore(memory, part.start, part.size)
            if part.start == region.address:
                pieces.append(Piece(region.name, store, part.start, region.size))
            else:  # The machine has a hole there.
                pieces.append(Piece(region.name, store, part.start, part.size))
    if not pieces:
        raise TargetError(
            f"{table.source} has no valid regions\n" + "\n".join(table.problems[:5])
        )
    return assemble(source, pieces, problems=table.problems)
