# SPDX-License-Identifier: GPL-2.0-or-later
"""
Read whole structures, as far as memory is mapped, so that they are recorded.

The kernel may be damaged: every size that comes from it is limited.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from drgn import FaultError, Object, Program, Symbol, sizeof
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.pid import find_task
from drgn.helpers.linux.sched import cpu_curr, idle_task

from kmemdump.kernel.program import OBJECTS
from kmemdump.kernel.tasks import task_address
from kmemdump.memory.physical import PAGE_SIZE

__all__ = [
    "MAX_ENTRIES",
    "MAX_STRING",
    "MAX_VARIABLE",
    "cpus",
    "main_tasks",
    "per_cpu_offset",
    "read_object",
    "read_pages",
    "read_path",
    "read_string",
    "symbols",
]

MAX_STRING = 1500
"""Most bytes that crash reads of a string: BUFSIZE in its defs.h."""
MAX_ENTRIES = 4096
"""Most entries of a list."""
MAX_VARIABLE = 256 << 10
"""Most bytes of one object."""


def symbols(prog: Program, name: str) -> list[Symbol]:
    """Return the symbols with a name."""
    found: list[Symbol] = prog.symbols(name)
    return found[:8]  # Several static symbols may share a name.


def cpus(prog: Program) -> list[int]:
    """Return the possible CPUs."""
    return list(islice(for_each_possible_cpu(prog), MAX_ENTRIES))


def per_cpu_offset(prog: Program, cpu: int) -> int:
    """Return the offset of a CPU's copy of a per-CPU variable."""
    offset: int = prog.read_u64(prog.symbol("__per_cpu_offset").address + 8 * cpu)
    return offset


def main_tasks(prog: Program) -> Iterator[Object]:
    """Yield the task that each CPU runs, each CPU's idle task, and init."""
    seen = set()
    for cpu in cpus(prog):
        for find in (cpu_curr, idle_task):
            try:
                task = find(prog, cpu)
                address = task_address(task)
            except FaultError:
                continue
            if address and address not in seen:
                seen.add(address)
                yield task
    task = find_task(prog, 1)
    if task and task_address(task) not in seen:
        yield task


def read_object(value: Object) -> None:
    """Read an object whole."""
    if value.address_ is not None:
        note = value.prog_.config.get(OBJECTS)
        if note is not None:
            note(value)
        read_pages(value.prog_, value.address_, min(sizeof(value), MAX_VARIABLE))


def read_path(dentry: Object) -> None:
    """Read a dentry and its parents, with their names."""
    for _ in range(MAX_ENTRIES):
        read_object(dentry[0])
        read_string(dentry.prog_, dentry.d_name.name.value_())
        parent = dentry.d_parent.read_()
        if parent.value_() in (0, dentry.value_()):
            break
        dentry = parent


def read_string(prog: Program, address: int) -> None:
    """Read a string up to the end of its page, and on the next page if needed."""
    page = read_pages(prog, address, PAGE_SIZE - address % PAGE_SIZE)
    if page and b"\0" not in page[:MAX_STRING]:
        read_pages(prog, address + len(page), 1)


def read_pages(prog: Program, address: int, size: int) -> bytes:
    """Read page by page up to the first missing page; return the bytes read."""
    pieces = []
    end = address + size
    while address < end:
        count = min(end - address, PAGE_SIZE - address % PAGE_SIZE)
        try:
            pieces.append(prog.read(address, count))
        except (FaultError, OverflowError):  # Not mapped; not an address.
            break
        address += count
    return b"".join(pieces)
