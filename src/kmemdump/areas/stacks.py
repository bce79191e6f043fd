# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel stacks of running tasks, of blocked tasks, and of all tasks."""

from __future__ import annotations

from drgn import FaultError, Object, Program
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.percpu import per_cpu
from drgn.helpers.linux.sched import idle_task, task_state_to_char

from kmemdump.arch.architecture import arch_from_program
from kmemdump.areas.area import area, read_bytes
from kmemdump.areas.register_stacks import stacks_in_registers
from kmemdump.kernel.task_list import all_tasks
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.questions.objects import each
from kmemdump.questions.question import function

__all__ = ["ALL_STACKS", "STACKS"]

_MAX_STACK = 1 << 17


def running_stacks(prog: Program) -> None:
    """The whole stacks of the task that each CPU runs, and of its idle task."""
    for cpu in for_each_possible_cpu(prog):
        for task in (per_cpu(prog["runqueues"], cpu).curr, idle_task(prog, cpu)):
            size = prog["THREAD_SIZE"].value_()
            read_bytes(prog, task.stack.value_(), size, _MAX_STACK)


def interrupt_stacks(prog: Program) -> None:
    """The stack on which each CPU takes interrupts."""
    arch = arch_from_program(prog)
    for cpu in for_each_possible_cpu(prog):
        stack = arch.interrupt_stack(prog, cpu)
        if stack is not None:
            read_bytes(prog, stack.start, stack.size, _MAX_STACK)


def exception_stacks(prog: Program) -> None:
    """The stacks for NMI, double fault, overflow and the like, where mapped."""
    arch = arch_from_program(prog)
    for cpu in for_each_possible_cpu(prog):
        for stack in arch.exception_stacks(prog, cpu):
            end = stack.end
            while end > stack.start:
                start = max((end - 1) & -PAGE_SIZE, stack.start)
                if not read_bytes(prog, start, end - start, PAGE_SIZE):
                    break  # A guard page.
                end = start


def blocked_stacks(prog: Program) -> None:
    """Stack traces of tasks that wait uninterruptibly (state D)."""
    for task in each("tasks", all_tasks(prog)):
        if task_state_to_char(task) == "D":
            _unwind(prog, task)


def used_stacks(prog: Program) -> None:
    """
    What each task's stack holds since it sleeps.

    To unwind by debug info is to read all registers that a function saved, also those
    that the kernel's own tables do not need.
    """
    arch = arch_from_program(prog)
    size = prog["THREAD_SIZE"].value_()
    for task in each("tasks", all_tasks(prog)):
        end = arch.untagged(task.stack.value_()) + size
        pointer = arch.saved_stack_pointer(task)
        if end - size <= pointer < end:
            read_bytes(prog, pointer, end - pointer, _MAX_STACK)


def _unwind(prog: Program, task: Object) -> None:
    try:
        for frame in prog.stack_trace(task):
            _ = frame.name
    except (FaultError, ValueError, LookupError):
        return  # It runs on a CPU, or its stack is damaged. Go on.


STACKS = area(
    "stacks",
    "stacks of what runs on each CPU, of interrupts, and of blocked tasks",
    function(stacks_in_registers, bare=True),
    "bt -a",
    "bt 1",
    "waits",
    "locks",
    running_stacks,
    interrupt_stacks,
    exception_stacks,
    blocked_stacks,
    # On x86_64, this locates each CPU's exception stacks. Only a trace from registers
    # reads it, and a machine that looks at itself has no registers.
    variables=("_cea_offset",),
)

# crash would read the whole stack of each task, and is not asked for all of them.
ALL_STACKS = area(
    "all-stacks", "stacks of all tasks", "foreach bt", used_stacks, for_crash=False
)
