# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory: where it is, and what it is used for."""

from drgn import Program

from kmemdump.areas.area import area
from kmemdump.kernel.iomem import find_system_ram

__all__ = ["MEMORY"]


def ram(prog: Program) -> None:
    """Where the machine has RAM."""
    for item in find_system_ram(prog):
        print(item)


MEMORY = area(
    "memory",
    "where memory is, how it is used, swap",
    "kmem -i",
    "kmem -z",
    "swap",
    ram,
    variables=("vm_zone_stat", "vm_node_stat", "vm_committed_as", "max_pfn"),
)
