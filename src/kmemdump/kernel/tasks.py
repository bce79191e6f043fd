# SPDX-License-Identifier: GPL-2.0-or-later
"""The tasks in a dump that may lack some tasks, or parts of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress

from drgn import FaultError, Object, Program, StackTrace, sizeof
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.sched import idle_task

from kmemdump.arch.architecture import arch_from_program
from kmemdump.kernel.program import REGISTERS
from kmemdump.memory.recorder import current_recorder

__all__ = [
    "is_without_registers",
    "number_of_registers",
    "readable_pids",
    "readable_tasks",
    "register_values",
    "stack_of_registers",
    "task_address",
]

_REGISTERS_AT = 112
"""Offset of ``pr_reg`` in ``struct elf_prstatus`` of 64-bit machines."""


def is_without_registers(error: BaseException) -> bool:
    """
    Return whether drgn has no stack trace of a task because the task is running on a
    CPU whose registers are not known.
    """
    # drgn_get_initial_registers(), drgn's libdrgn/stack_trace.c: for a live kernel
    # (ValueError) and for a dead one (LookupError).
    return isinstance(error, ValueError | LookupError) and (
        "running task" in str(error) or "registers for CPU" in str(error)
    )


def stack_of_registers(prog: Program, cpu: int) -> StackTrace:
    """
    Unwind from a CPU's registers, if its task started after the memory was marked.

    :raises LookupError: If there are no registers.
    """
    found = _registers(prog)
    if cpu >= len(found):
        raise LookupError(f"the registers of CPU {cpu} were not recorded")
    # On x86_64 and aarch64 struct pt_regs begins as pr_reg does: user_regs_struct,
    # user_pt_regs (Linux arch/*/include/*/ptrace.h).
    try:
        kind = prog.type("struct pt_regs")
    except LookupError:  # drgn knows its members.
        size = arch_from_program(prog).pt_regs_size
        kind = prog.struct_type("pt_regs", size, ())
    data = found[cpu][_REGISTERS_AT:][: sizeof(kind)].ljust(sizeof(kind), b"\0")
    return prog.stack_trace(Object.from_bytes_(prog, kind, data))


def _registers(prog: Program) -> Sequence[bytes]:
    """Return NT_PRSTATUS of each CPU, which are others at each look."""
    recorder = current_recorder()
    if recorder is not None:
        recorder.note_volatile()
    found: Sequence[bytes] = prog.config.get(REGISTERS, ())
    return found


def task_address(task: Object) -> int:
    """
    Return the address of a task, to be compared with others.

    :param task: ``struct task_struct *``
    """
    return arch_from_program(task.prog_).untagged(task.value_())


def number_of_registers(prog: Program) -> int:
    """Return of how many CPUs there are registers."""
    return len(_registers(prog))


def register_values(prog: Program) -> Iterator[dict[str, int]]:
    """
    Yield each CPU's registers, in CPU order.

    By QEMU's names; see :attr:`kmemdump.arch.architecture.Arch.registers`.
    """
    names = arch_from_program(prog).registers
    words = struct.Struct(f"<{len(names)}Q")
    for status in _registers(prog):
        if len(status) >= _REGISTERS_AT + words.size:
            values = words.unpack_from(status, _REGISTERS_AT)
            yield dict(zip(names, values, strict=True))


def readable_pids(prog: Program) -> Iterator[int]:
    """
    Yield the ids of all tasks before the first that cannot be read.

    Such a task started after the memory was marked, and the newest tasks are last in
    the kernel's list. A search by id would end at any unreadable task.
    """
    found: set[int] = set()
    with suppress(FaultError):
        for task in _with_threads(prog["init_task"].address_of_()):
            pid = task.pid.value_()
            if pid not in found:
                found.add(pid)
                yield pid


def readable_tasks(prog: Program) -> Iterator[Object]:
    """Yield each online CPU's idle task, and all tasks before one that is missing."""
    found: set[int] = set()
    with suppress(FaultError):
        for cpu in for_each_online_cpu(prog):
            task = idle_task(prog, cpu)
            found.add(task_address(task))
            yield task
    first = prog["init_task"].address_of_()
    found.add(task_address(first))  # The idle task of CPU 0, which may be offline.
    with suppress(FaultError):
        for task in _with_threads(first):
            if (address := task_address(task)) not in found:
                found.add(address)
                yield task


def _with_threads(first: Object) -> Iterator[Object]:
    yield first
    leaders: set[int] = set()
    threads: set[int] = set()
    for leader in _listed(first.tasks.address_of_(), "tasks", leaders):
        yield leader
        with suppress(FaultError):
            head = leader.signal.thread_head.address_of_()
            yield from _listed(head, "thread_node", threads)


def _listed(head: Object, link: str, seen: set[int]) -> Iterator[Object]:
    """
    Walk a list of tasks.

    :param seen: Tasks at which to end, since a damaged list may be circular, or lead
        into another list. The tasks that are found are added.
    """
    for task in list_for_each_entry("struct task_struct", head, link):
        if (address := task_address(task)) in seen:
            return
        seen.add(address)
        yield task
