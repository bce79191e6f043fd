# SPDX-License-Identifier: GPL-2.0-or-later
"""
Vital signs: the few variables that tell whether a kernel lives.

Where they are in physical memory is found once, with drgn, while the kernel is
healthy. Reading them is a handful of small reads, which needs no debugger, no
guest and no QEMU that answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from drgn import FaultError, Object, Program, sizeof
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.mm import follow_phys
from drgn.helpers.linux.percpu import per_cpu

from kmemdump.errors import UnsupportedError
from kmemdump.kernel.attach import Kernel
from kmemdump.memory.physical import Memory

__all__ = ["CpuSigns", "Signs", "Vitals", "ticking"]

_MAX_CPUS = 4096
_MAX_COUNTER = 256
_NO_CPU = 0xFFFFFFFF  # PANIC_CPU_INVALID, Linux include/linux/panic.h
_TAINT_DIE = 1 << 7  # Linux include/linux/panic.h
_SYSTEM_HALT = 4
_SYSTEM_SUSPEND = 7
_MAX_TICKS = 60_000  # A minute, at the highest CONFIG_HZ.

# Per-CPU variables and members of them that only their CPU changes, each in
# interrupts or in the idle loop. No single one is there and moves on every kernel:
# hrtimer_bases.nr_events needs CONFIG_HIGH_RES_TIMERS and a clock for them,
# apic_timer_irqs is x86's, irqs_sum lacks just that interrupt. NMIs are not
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
class _Place:
    """A variable in physical memory."""

    address: int
    size: int

    def read(self, memory: Memory) -> bytes:
        return memory.read(self.address, self.size)

    def number(self, memory: Memory) -> int:
        return int.from_bytes(self.read(memory), "little")


@dataclass(frozen=True, slots=True)
class _CpuPlaces:
    counters: tuple[_Place, ...]
    current: _Place | None
    idle_task: int


@dataclass(frozen=True, slots=True)
class CpuSigns:
    """What a kernel's memory says about one CPU."""

    counters: bytes
    idle: bool


@dataclass(frozen=True, slots=True)
class Signs:
    """What a kernel's memory says about its life."""

    same: bool
    """Whether the kernel is still there at all."""
    panic_cpu: int | None
    """The CPU that panicked."""
    oopsed: bool
    """Whether it survived an oops, or is about to panic of it."""
    booted: bool
    """Whether it has come up, and does not go down."""
    leaving: bool
    """Whether it is going down in an orderly way: to reboot, power off or halt."""

    @property
    def panicked(self) -> bool:
        return self.panic_cpu is not None


class Vitals:
    """
    Where the vital signs of a kernel are.

    :param kernel: Attached, and healthy.
    :raises UnsupportedError: If it does not have them where they are expected.
    """

    def __init__(self, kernel: Kernel) -> None:
        if kernel.problem is not None:
            raise UnsupportedError(kernel.problem)
        prog = kernel.prog
        try:
            resolve = _resolver(prog)
            panic_cpu = _scalar(prog, resolve, "panic_cpu", 4)
            self._uts = _Place(resolve(*_uts(prog)), _uts(prog)[1])
        except (LookupError, FaultError, ValueError) as error:
            raise UnsupportedError(
                f"cannot find the kernel's panic state: {error}"
            ) from error
        self._panic_cpu = panic_cpu
        self._tainted = _optional(prog, resolve, "tainted_mask", 8)
        self._state = _optional(prog, resolve, "system_state", 4)
        self._jiffies = _optional(prog, resolve, "jiffies_64", 8)
        self._panic_on_oops = _optional(prog, resolve, "panic_on_oops", 4)
        self._online = _mask(prog, resolve)
        self._log = _log_head(prog, resolve)
        self._halt = _constant(prog, "SYSTEM_HALT", _SYSTEM_HALT)
        self._suspend = _constant(prog, "SYSTEM_SUSPEND", _SYSTEM_SUSPEND)
        self._cpus = dict(_cpus(prog, resolve))
        self._identity = self._uts.read(kernel.recorder.memory)

    @property
    def blind(self) -> list[str]:
        """What cannot be seen of this kernel, for a person to know."""
        found = []
        if self._jiffies is None:
            found.append("its clock")
        if not any(places.counters for places in self._cpus.values()):
            found.append("the interrupts of its CPUs")
        return found

    def read(self, memory: Memory) -> Signs:
        """
        Read the signs of life or death.

        :raises NotCapturedError: If the memory cannot be read any more.
        """
        same = self._uts.read(memory) == self._identity
        panic_cpu = self._panic_cpu.number(memory)
        state = self._state.number(memory) if self._state else None
        tainted = self._tainted.number(memory) if self._tainted else 0
        return Signs(
            same=same,
            panic_cpu=None if panic_cpu == _NO_CPU or not same else panic_cpu,
            oopsed=same and bool(tainted & _TAINT_DIE),
            booted=same and state in (None, self._halt - 1),
            leaving=same and state is not None and self._halt <= state < self._suspend,
        )

    def panics_on_oops(self, memory: Memory) -> bool:
        """Tell whether an oops becomes a panic."""
        return self._panic_on_oops is not None and (
            self._panic_on_oops.number(memory) != 0
        )

    def jiffies(self, memory: Memory) -> int | None:
        """Read the kernel's clock."""
        return self._jiffies.number(memory) if self._jiffies else None

    def log_head(self, memory: Memory) -> bytes:
        """Read something that changes with each message that the kernel logs."""
        return self._log.read(memory) if self._log else b""

    def cpus(self, memory: Memory) -> dict[int, CpuSigns]:
        """Read what moves on each CPU that is online."""
        online = self._online.number(memory) if self._online else -1
        return {
            cpu: CpuSigns(
                b"".join(place.read(memory) for place in places.counters),
                places.current is not None
                and places.current.number(memory) == places.idle_task,
            )
            for cpu, places in self._cpus.items()
            if online >> cpu & 1 and places.counters
        }


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


def _uts(prog: Program) -> tuple[int, int]:
    # The release and the version, which has the time of the build; not the node
    # name before them, which the guest sets.
    name = prog["init_uts_ns"].name
    address = name.release.address_
    assert address is not None
    return address, 2 * sizeof(name.release)


def _scalar(prog: Program, resolve: _Resolve, name: str, size: int) -> _Place:
    return _Place(resolve(prog.symbol(name).address, size), size)


def _optional(prog: Program, resolve: _Resolve, name: str, size: int) -> _Place | None:
    try:
        return _scalar(prog, resolve, name, size)
    except (LookupError, FaultError, ValueError):
        return None


def _member(resolve: _Resolve, value: Object) -> _Place | None:
    size = sizeof(value)
    address = value.address_
    if address is None or not 0 < size <= _MAX_COUNTER:
        return None
    return _Place(resolve(address, size), size)


def _mask(prog: Program, resolve: _Resolve) -> _Place | None:
    try:
        mask = prog["__cpu_online_mask"]
        address = mask.address_
        size = min(sizeof(mask), _MAX_CPUS // 8)
        return None if address is None else _Place(resolve(address, size), size)
    except (LookupError, FaultError, ValueError):
        return None


def _log_head(prog: Program, resolve: _Resolve) -> _Place | None:
    # Since Linux kernel commit 896fbe20b4e2 ("printk: use the lockless ringbuffer")
    # (in v5.10).
    try:
        return _member(resolve, prog["prb"].desc_ring.head_id)
    except (LookupError, AttributeError, FaultError, ValueError):
        return None


def _constant(prog: Program, name: str, default: int) -> int:
    try:
        value: int = prog.constant(name).value_()
    except LookupError:
        return default
    return value


def _cpus(prog: Program, resolve: _Resolve) -> Iterator[tuple[int, _CpuPlaces]]:
    with contextlib.suppress(LookupError, FaultError, ValueError):
        for cpu in for_each_possible_cpu(prog):
            if cpu >= _MAX_CPUS:
                return
            yield cpu, _cpu_places(prog, resolve, cpu)


def _cpu_places(prog: Program, resolve: _Resolve, cpu: int) -> _CpuPlaces:
    counters = []
    for name, member in _COUNTERS:
        with contextlib.suppress(
            LookupError, AttributeError, FaultError, ValueError, TypeError
        ):
            place = _member(resolve, per_cpu(prog[name], cpu).member_(member))
            if place is not None:
                counters.append(place)
    current = None
    idle_task = 0
    with contextlib.suppress(LookupError, AttributeError, FaultError, ValueError):
        queue = per_cpu(prog["runqueues"], cpu)
        idle_task = queue.idle.value_()
        current = _member(resolve, queue.curr)
    return _CpuPlaces(tuple(counters), current, idle_task)


def ticking(vitals: Vitals, memory: Memory) -> Callable[[], bool]:
    """
    Return a function that tells whether a kernel's clock has gone on since now.

    After a reset all of a kernel may still be there in memory: it stands still, or
    is overwritten by the next one.
    """
    before = vitals.jiffies(memory)

    def has_ticked() -> bool:
        now = vitals.jiffies(memory)
        if before is None or now is None:
            return True  # Nothing can be said.
        return 0 < now - before <= _MAX_TICKS and vitals.read(memory).same

    return has_ticked
