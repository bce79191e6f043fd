# SPDX-License-Identifier: GPL-2.0-or-later
"""
Section of a report: each CPU, its task, and whether it took timer interrupts.

A CPU that spins with interrupts off logs nothing. But it takes no timer interrupt, and
memory has the time at which the next one was due. The longer ago that was, the longer
the CPU has hung.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from drgn import Program
from drgn.helpers.linux.cpumask import for_each_online_cpu, for_each_present_cpu
from drgn.helpers.linux.percpu import per_cpu
from drgn.helpers.linux.timekeeping import ktime_get_coarse_ns

from kmemdump.arch.architecture import arch_from_program
from kmemdump.diagnosis.records import Cpu
from kmemdump.kernel.limits import MAX_CPUS
from kmemdump.kernel.optional import ABSENT, optional
from kmemdump.kernel.tasks import (
    is_without_registers,
    number_of_registers,
    task_address,
)
from kmemdump.report.sections import reason
from kmemdump.report.stacks import find_frames, find_frames_without_task
from kmemdump.report.tasks import make_task

__all__ = ["find_cpus", "find_now", "find_panic_cpu"]

_IDLE_TIMES = ("idle_entrytime", "idle_exittime")
"""Members of ``struct tick_sched``; the latter was removed in v7.2."""
_NEVER = 1 << 62  # Above that, no timer is pending: KTIME_MAX is 2^63 - 1.


def find_now(prog: Program) -> float:
    """
    Return the latest time since boot in memory, in seconds.

    The CPU that keeps the clock may be the one that hangs. Others then still record
    when they go idle, from a clock that they read themselves.
    """
    found: list[int | None] = [optional(partial(_clock, prog))]
    # In most cases, the clock alone is right.
    for cpu in optional(lambda: list(for_each_online_cpu(prog))) or ():
        for member in _IDLE_TIMES:
            found.append(optional(partial(_idle_time, prog, cpu, member)))
    times = [time for time in found if time is not None and time < _NEVER]
    return (max(times) if times else _clock(prog)) / 1e9


def _clock(prog: Program) -> int:
    time: int = ktime_get_coarse_ns(prog).value_()
    return time


def _idle_time(prog: Program, cpu: int, member: str) -> int:
    time: int = per_cpu(prog["tick_cpu_sched"], cpu).member_(member).value_()
    return time


def find_panic_cpu(prog: Program) -> int | None:
    """Return the CPU that called ``panic()``, if one has."""
    number: int = prog["panic_cpu"].counter.value_()
    return number if 0 <= number < MAX_CPUS else None  # PANIC_CPU_INVALID is -1.


def find_cpus(prog: Program, now: float | None) -> tuple[Cpu, ...]:
    """
    Return each CPU, and what ran there.

    If the kernel's list of CPUs cannot be read, those with registers are returned.

    :param now: From :func:`find_now`, if known.
    """
    try:
        online = frozenset(for_each_online_cpu(prog))
        present = sorted(online.union(for_each_present_cpu(prog)))
    except ABSENT:
        count = number_of_registers(prog)
        if not count:
            raise
        online = frozenset(range(count))
        present = sorted(online)
    return tuple(
        _cpu(prog, cpu, cpu in online, now) for cpu in present if cpu < MAX_CPUS
    )


def _cpu(prog: Program, number: int, online: bool, now: float | None) -> Cpu:
    overdue = None
    if now is not None and online:
        overdue = optional(lambda: _timer_overdue(prog, number, now))
    found = Cpu(number, online, timer_overdue=overdue)
    try:
        queue = per_cpu(prog["runqueues"], number)
        task = queue.curr.read_()
        found = replace(
            found,
            idle=task_address(task) == task_address(queue.idle),
            task=make_task(task, state=False),
        )
        stack = find_frames(task)
    except ABSENT as error:
        problem = reason(error)
        if is_without_registers(error):
            problem = "the registers of this CPU were not recorded"
        found = replace(found, problem=problem)
        try:
            stack = find_frames_without_task(prog, number)
        except ABSENT:
            return found
        found = replace(found, problem=f"from its registers alone: {problem}")
    frames, first = stack.frames, stack.first
    return replace(
        found,
        problem=found.problem or stack.problem,
        interrupted=any(frame.interrupted for frame in frames[1:]),
        ip=frames[0].pc if frames else None,
        interrupts=arch_from_program(prog).interrupts_enabled(first.registers())
        if first
        else None,
        frames=frames,
    )


def _timer_overdue(prog: Program, cpu: int, now: float) -> float | None:
    """Return the seconds for which a CPU's timer has been overdue."""
    base = per_cpu(prog["hrtimer_bases"], cpu)
    due = base.expires_next
    if not base.hres_active:
        due = per_cpu(prog["tick_cpu_device"], cpu).evtdev.next_event
    nanoseconds: int = due.value_()
    return now - nanoseconds / 1e9 if 0 < nanoseconds < _NEVER else None
