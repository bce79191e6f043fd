# SPDX-License-Identifier: GPL-2.0-or-later
"""
Read the kernel variables that show whether it runs, has panicked or is going down.

Their physical addresses are found once, with drgn, while the kernel is healthy.
Afterwards a few small reads of guest memory are enough; they need neither drgn, nor a
cooperating guest, nor a responding QEMU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from drgn import Object, Program, sizeof
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.mm import follow_phys
from drgn.helpers.linux.percpu import per_cpu

from kmemdump.errors import UnsupportedError
from kmemdump.kernel.attach import Kernel
from kmemdump.kernel.optional import ABSENT, optional
from kmemdump.memory.physical import Memory
from kmemdump.watch.hang_detector import CpuSample

__all__ = ["KernelState", "Liveness"]

_MAX_CPUS = 4096
_MAX_MEMBER = _MAX_CPUS // 8  # Most bytes read of a member.
_NO_CPU = 0xFFFFFFFF  # PANIC_CPU_INVALID, Linux include/linux/panic.h
_TAINT_DIE = 1 << 7  # Linux include/linux/panic.h
_SYSTEM_HALT = 4
_SYSTEM_SUSPEND = 7
_MAX_TICKS = 60_000  # A minute, at the highest CONFIG_HZ.

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


@dataclass(frozen=True, slots=True)
class _Variable:
    """A variable in physical memory."""

    address: int
    size: int

    def read(self, memory: Memory) -> bytes:
        return memory.read(self.address, self.size)

    def number(self, memory: Memory) -> int:
        return int.from_bytes(self.read(memory), "little")


@dataclass(frozen=True, slots=True)
class _CpuVariables:
    counters: tuple[_Variable, ...]
    current: _Variable | None
    idle_task: int


@dataclass(frozen=True, slots=True)
class KernelState:
    """The state of a kernel, as its memory shows it."""

    same: bool
    """Whether the kernel is still in memory at all."""
    panicked: bool
    oopsed: bool
    """Whether it survived an oops, or is about to panic because of one."""
    booted: bool
    """Whether it has booted and is not going down."""
    leaving: bool
    """Whether it is going down in an orderly way: to reboot, power off or halt."""


class Liveness:
    """
    The addresses of the variables that show whether a kernel lives.

    :param kernel: Attached, and healthy.
    :raises UnsupportedError: If it does not have them where they are expected.
    """

    def __init__(self, kernel: Kernel) -> None:
        if kernel.problem is not None:
            raise UnsupportedError(kernel.problem)
        prog = kernel.prog
        try:
            resolve = _resolver(prog)
            self._panic_cpu = _scalar(prog, resolve, "panic_cpu", 4)
            # The release and the version, which has the time of the build; not the node
            # name before them, which the guest sets.
            release = prog["init_uts_ns"].name.release
            size = 2 * sizeof(release)
            self._uts = _Variable(resolve(release.address_of_().value_(), size), size)
        except ABSENT as error:
            raise UnsupportedError(
                f"cannot find the kernel's panic state: {error}"
            ) from error
        self._tainted = optional(lambda: _scalar(prog, resolve, "tainted_mask", 8))
        self._state = optional(lambda: _scalar(prog, resolve, "system_state", 4))
        self._jiffies = optional(lambda: _scalar(prog, resolve, "jiffies_64", 8))
        self._online = optional(lambda: _member(resolve, prog["__cpu_online_mask"]))
        # Since Linux kernel commit 896fbe20b4e2 ("printk: use the lockless
        # ringbuffer") (in v5.10).
        self._log = optional(lambda: _member(resolve, prog["prb"].desc_ring.head_id))
        self._halt = _constant(prog, "SYSTEM_HALT", _SYSTEM_HALT)
        self._suspend = _constant(prog, "SYSTEM_SUSPEND", _SYSTEM_SUSPEND)
        self._cpus = dict(_cpus(prog, resolve))
        self._identity = self._uts.read(kernel.recorder.memory)

    @property
    def unknown(self) -> list[str]:
        """What this kernel lacks, in words for a person."""
        found = []
        if self._jiffies is None:
            found.append("its clock")
        if not any(variables.counters for variables in self._cpus.values()):
            found.append("the interrupt counters of its CPUs")
        return found

    def read(self, memory: Memory) -> KernelState:
        """
        Read the state of the kernel.

        :raises NotCapturedError: If the memory cannot be read any more.
        """
        same = self._uts.read(memory) == self._identity
        state = self._state.number(memory) if self._state else None
        tainted = self._tainted.number(memory) if self._tainted else 0
        return KernelState(
            same=same,
            panicked=same and self._panic_cpu.number(memory) != _NO_CPU,
            oopsed=same and bool(tainted & _TAINT_DIE),
            booted=same and state in (None, self._halt - 1),
            leaving=same and state is not None and self._halt <= state < self._suspend,
        )

    def jiffies(self, memory: Memory) -> int | None:
        """Read the kernel's clock."""
        return self._jiffies.number(memory) if self._jiffies else None

    def log_head(self, memory: Memory) -> bytes:
        """Read something that changes with each message that the kernel logs."""
        return self._log.read(memory) if self._log else b""

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

    def clock_watch(self, memory: Memory) -> Callable[[], bool]:
        """
        Return a function that checks if the kernel's clock has moved since this call.

        After a reset, all of a kernel may still be in memory; it stands still, or the
        next one overwrites it.
        """
        before = self.jiffies(memory)

        def has_moved() -> bool:
            now = self.jiffies(memory)
            if before is None or now is None:
                return True  # There is no clock to read.
            return 0 < now - before <= _MAX_TICKS and self.read(memory).same

        return has_moved


_Resolve = Callable[[int, int], int]


def _resolver(prog: Program) -> _Resolve:
    """Return a function that turns a virtual address and size into a physical one."""
    mm = prog["init_mm"].address_of_()

    def resolve(address: int, size: int) -> int:
        physical: int = follow_phys(mm, address).value_()
        last: int = follow_phys(mm, address + size - 1).value_()
        if last != physical + size - 1:
            raise ValueError(f"{address:#x} is not contiguous")
        return physical

    return resolve


def _scalar(prog: Program, resolve: _Resolve, name: str, size: int) -> _Variable:
    return _Variable(resolve(prog.symbol(name).address, size), size)


def _member(resolve: _Resolve, value: Object) -> _Variable | None:
    size = min(sizeof(value), _MAX_MEMBER)
    address = value.address_
    return _Variable(resolve(address, size), size) if address and size else None


def _constant(prog: Program, name: str, default: int) -> int:
    value: int | None = optional(lambda: prog.constant(name).value_())
    return default if value is None else value


def _cpus(prog: Program, resolve: _Resolve) -> Iterator[tuple[int, _CpuVariables]]:
    with contextlib.suppress(*ABSENT):
        for cpu in for_each_possible_cpu(prog):
            if cpu >= _MAX_CPUS:
                return
            yield cpu, _cpu_variables(prog, resolve, cpu)


def _cpu_variables(prog: Program, resolve: _Resolve, cpu: int) -> _CpuVariables:
    counters = []
    for name, member in _COUNTERS:
        with contextlib.suppress(*ABSENT):
            counter = _member(resolve, per_cpu(prog[name], cpu).member_(member))
            if counter is not None:
                counters.append(counter)
    current = None
    idle_task = 0
    with contextlib.suppress(*ABSENT):
        queue = per_cpu(prog["runqueues"], cpu)
        # As it is in memory, with a tag, like the pointer to the current task.
        idle_task = queue.idle.value_()
        current = _member(resolve, queue.curr)
    return _CpuVariables(tuple(counters), current, idle_task)
