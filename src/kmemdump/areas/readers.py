# SPDX-License-Identifier: GPL-2.0-or-later
"""
Reading whole things, so that they are recorded, as far as there is memory.

The kernel may be damaged: everything whose size it tells is limited.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from drgn import FaultError, Object, Program, Symbol, sizeof
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.pid import find_task
from drgn.helpers.linux.sched import cpu_curr, idle_task

from kmemdump.memory.physical import PAGE_SIZE

__all__ = [
    "MAX_ENTRIES",
    "MAX_VARIABLE",
    "STRING",
    "cpus",
    "main_tasks",
    "per_cpu_offset",
    "symbols",
    "touch",
    "touch_object",
    "touch_path",
    "touch_string",
]

STRING = 1500
"""Most bytes that crash reads of a string: BUFSIZE, its defs.h."""
MAX_ENTRIES = 4096
"""Most members of a list."""
MAX_VARIABLE = 256 << 10
"""Most bytes of one object."""


def symbols(prog: Program, name: str) -> list[Symbol]:
    """Return the symbols of a name."""
    found: list[Symbol] = prog.symbols(name)
    return found[:8]  # Static ones may share a name.


def cpus(prog: Program) -> list[int]:
    """Return the CPUs that there may be."""
    return list(islice(for_each_possible_cpu(prog), MAX_ENTRIES))


def per_cpu_offset(prog: Program, cpu: int) -> int:
    """Return what is added to the address of a per-CPU variable."""
    offset: int = prog.read_u64(prog.symbol("__per_cpu_offset").address + 8 * cpu)
    return offset


def main_tasks(prog: Program) -> Iterator[Object]:
    """Iterate over what runs on each CPU, each CPU's idle task, and init."""
    seen = set()
    for cpu in cpus(prog):
        for find in (cpu_curr, idle_task):
            try:
                task = find(prog, cpu)
                address = task.value_()
            except FaultError:
                continue
            if address and address not in seen:
                seen.add(address)
                yield task
    task = find_task(prog, 1)
    if task and task.value_() not in seen:
        yield task


def touch_object(value: Object) -> None:
    """Read an object whole."""
    if value.address_ is not None:
        touch(value.prog_, value.address_, min(sizeof(value), MAX_VARIABLE))


def touch_path(dentry: Object) -> None:
    """Read a dentry and its parents, with their names."""
    for _ in range(MAX_ENTRIES):
        touch_object(dentry[0])
        touch_string(dentry.prog_, dentry.d_name.name.value_())
        parent = dentry.d_parent.read_()
        if parent.value_() in (0, dentry.value_()):
            break
        dentry = parent


def touch_string(prog: Program, address: int) -> None:
    """Read the rest of the page that a string begins in, and the next if need be."""
    page = touch(prog, address, PAGE_SIZE - address % PAGE_SIZE)
    if page and b"\0" not in page[:STRING]:
        touch(prog, address + len(page), 1)


def touch(prog: Program, address: int, size: int) -> bytes:
    """Read page by page up to the first that is not there; return what was read."""
    pieces = []
    end = address + size
    while address < end:
        count = min(end - address, PAGE_SIZE - address % PAGE_SIZE)
        try:
            pieces.append(prog.read(address, count))
        except (FaultError, OverflowError):  # No such memory; no such address.
            break
        address += count
    return b"".join(pieces)
