# SPDX-License-Identifier: GPL-2.0-or-later
"""Read what moves in a kernel that runs: its clock, and the counters of its CPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from drgn import Program
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.percpu import per_cpu

from kmemdump.arch.architecture import arch_from_info, arch_from_program
from kmemdump.arch.pagetable import read_virtual
from kmemdump.errors import NotCapturedError
from kmemdump.kernel.attach import Kernel
from kmemdump.kernel.optional import ABSENT, optional
from kmemdump.memory.physical import Memory
from kmemdump.watch.hang_detector import CpuSample
from kmemdump.watch.kernel_variables import (
    Resolve,
    Variable,
    find_member,
    find_scalar,
    resolver,
)

__all__ = ["Progress"]

_MAX_CPUS = 4096

# Per-CPU variables and members of them that only their CPU changes, each in
# interrupts or in the idle loop. No single one exists and moves on every kernel:
# hrtimer_bases.nr_events needs CONFIG_HIGH_RES_TIMERS and a clock for them,
# apic_timer_irqs exists on x86, irqs_sum lacks just that interrupt. NMIs are not
# counted: a frozen CPU takes them.
_COUNTERS = (
    ("hrtimer_bases", "nr_events"),
    ("irq_stat", "apic_timer_irqs"),
    ("kernel_cpustat", "cpustat"),
    ("kstat", "irqs_sum"),
    ("kstat", "softirqs"),
    ("runqueues", "nr_switches"),
    ("tick_cpu_sched", "idle_calls"),
)


_IN_INTERRUPT = 0x00FFFF00
"""
Bits of preempt_count that are set in a hard interrupt, a soft one, or an NMI, but not
in the idle loop (Linux include/linux/preempt.h).
"""


@dataclass(frozen=True, slots=True)
class _CpuVariables:
    counters: tuple[Variable, ...]
    current: Variable | None
    idle_task: int
    preempt_count: Variable | None
    """Of the CPU, or of its idle task."""


class Progress:
    """
    The addresses of what moves in a kernel, as far as they are known.

    :param kernel: Attached, and healthy.
    """

    def __init__(self, kernel: Kernel) -> None:
        prog, resolve = kernel.prog, resolver(kernel)
        self._arch = arch_from_info(kernel.vmcoreinfo)
        self._table = self._arch.page_table(kernel.vmcoreinfo)
        self._jiffies = optional(lambda: find_scalar(prog, resolve, "jiffies_64", 8))
        self._online = optional(lambda: find_member(resolve, prog["__cpu_online_mask"]))
        self._cpus = dict(_cpus(prog, resolve))

    @property
    def has_counters(self) -> bool:
        """Whether counters of its CPUs are known."""
        return any(variables.counters for variables in self._cpus.values())

    @property
    def unknown(self) -> list[str]:
        """What this kernel lacks, in words for a person."""
        found = []
        if self._jiffies is None:
            found.append("its clock")
        if not self.has_counters:
            found.append("the interrupt counters of its CPUs")
        return found

    def jiffies(self, memory: Memory) -> int | None:
        """Read the kernel's clock."""
        return self._jiffies.number(memory) if self._jiffies else None

    def cpus(self, memory: Memory) -> dict[int, CpuSample]:
        """Read what moves on each CPU that is online."""
        online = self._online.number(memory) if self._online else -1
        return {
            cpu: CpuSample(
                b"".join(counter.read(memory) for counter in variables.counters),
                variables.current is not None
                and variables.current.number(memory) == variables.idle_task,
            )
            for cpu, variables in self._cpus.items()
            if online >> cpu & 1 and variables.counters
        }

    def is_idling(self, memory: Memory, cpu: int, pc: int) -> bool:
        """
        Return whether a CPU that runs its idle task waits there.

        It does not if an interrupt's handler took it from there, or if no instruction
        waits where it is, though it may always be the same one.
        """
        variables = self._cpus.get(cpu)
        count = variables.preempt_count if variables is not None else None
        if count is not None and count.number(memory) & _IN_INTERRUPT:
            return False
        return self.is_waiting(memory, pc)

    def is_waiting(self, memory: Memory, pc: int) -> bool:
        """Return whether a CPU is at an instruction by which it waits."""
        try:
            return self._arch.is_waiting(
                lambda address, size: read_virtual(
                    self._table, memory.read, address, size
                ),
                pc,
            )
        except NotCapturedError:
            # Not the kernel's code: of firmware, or before the kernel started this CPU.
            return True


def _cpus(prog: Program, resolve: Resolve) -> Iterator[tuple[int, _CpuVariables]]:
    with contextlib.suppress(*ABSENT):
        for cpu in for_each_possible_cpu(prog):
            if cpu >= _MAX_CPUS:
                return
            yield cpu, _cpu_variables(prog, resolve, cpu)


def _cpu_variables(prog: Program, resolve: Resolve, cpu: int) -> _CpuVariables:
    counters = []
    for name, member in _COUNTERS:
        with contextlib.suppress(*ABSENT):
            counter = find_member(resolve, per_cpu(prog[name], cpu).member_(member))
            if counter is not None:
                counters.append(counter)
    current = None
    idle_task = 0
    with contextlib.suppress(*ABSENT):
        queue = per_cpu(prog["runqueues"], cpu)
        # As it is in memory, with a tag, like the pointer to the current task.
        idle_task = queue.idle.value_()
        current = find_member(resolve, queue.curr)
    return _CpuVariables(
        tuple(counters),
        current,
        idle_task,
        optional(
            lambda: find_member(
                resolve, arch_from_program(prog).idle_preempt_count(prog, cpu)
            )
        ),
    )
