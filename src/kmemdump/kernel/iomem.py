# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's tree of memory resources, which /proc/iomem shows."""

from __future__ import annotations

from collections.abc import Iterator

from drgn import Object, Program

from kmemdump.memory.ranges import Range, merge

__all__ = ["find_system_ram"]

_SYSTEM_RAM = 0x01000200  # IORESOURCE_SYSTEM_RAM of include/linux/ioport.h.
_MAX_RESOURCES = 1 << 16


def find_system_ram(prog: Program) -> list[Range]:
    """
    Return the RAM that /proc/iomem shows as ``System RAM``.

    This excludes memory of firmware, and memory hidden from the kernel.
    """
    found = []
    for resource in _resources(prog):
        flags: int = resource.flags.value_()
        if flags & _SYSTEM_RAM == _SYSTEM_RAM:
            start: int = resource.start.value_()
            end: int = resource.end.value_() + 1
            if start < end <= 1 << 52:
                found.append(Range(start, end - start))
    return merge(found)


def _resources(prog: Program) -> Iterator[Object]:
    """Iterate over a tree that may be damaged, without recursion, up to a limit."""
    waiting = [prog["iomem_resource"].child.read_()]
    for _ in range(_MAX_RESOURCES):
        if not waiting:
            return
        resource = waiting.pop()
        if resource:
            yield resource
            waiting += [resource.sibling.read_(), resource.child.read_()]
