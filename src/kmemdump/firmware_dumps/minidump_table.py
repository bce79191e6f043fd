# SPDX-License-Identifier: GPL-2.0-or-later
"""The dump that firmware would have made of a machine by its minidump table."""

from __future__ import annotations

from kmemdump.errors import TargetError
from kmemdump.firmware.minidump_table import read_table
from kmemdump.firmware_dumps.assemble import FirmwareDump, assemble
from kmemdump.firmware_dumps.fragments import held_fragments
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import ADDRESS_SPACE, Range

__all__ = ["collect_table"]


def collect_table(memory: Memory, smem: Range, source: str = "memory") -> FirmwareDump:
    """
    Put together the memory that firmware would have dumped.

    :param memory: Stays the caller's, and open as long as the result is used.
    :raises TargetError: If the table has no regions.
    """
    table = read_table(memory, smem, source)
    fragments = [
        fragment
        for region in table.regions
        if region.is_valid and region.address + region.size <= ADDRESS_SPACE
        for fragment in held_fragments(
            memory, region.name, Range(region.address, region.size)
        )
    ]
    if not fragments:
        raise TargetError(
            f"{table.source} has no valid regions\n" + "\n".join(table.problems[:5])
        )
    return assemble(source, fragments, problems=table.problems)
