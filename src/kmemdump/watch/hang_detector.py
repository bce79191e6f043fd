# SPDX-License-Identifier: GPL-2.0-or-later
"""
Detect frozen CPUs, or a stopped kernel clock, from periodic samples.

A CPU is frozen if it runs kernel code all the time and serves no interrupt, so
that its counters stand still. The counters alone do not prove that: those of an idle
CPU without a tick stand still, too. Only the host can tell the two apart, because it
sees that the idle CPU is halted, or where it waits. A CPU that is halted with
interrupts off does not wait, though: nothing but an NMI or a reset wakes it.

Where the counters are not known, a CPU is frozen if it runs kernel code with interrupts
off each time it is looked at.

No single sample proves anything: on an overloaded host a healthy VM stands still,
too. The evidence is the time between samples that each found the CPU running, and
the CPU time that the host gave to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CpuSample", "Hang", "HangDetector", "Sample", "Vcpu"]

MIN_SAMPLES = 5
"""Number of samples that must agree."""
MIN_SAMPLES_WITHOUT_COUNTERS = 20
"""
The same where nothing is known but that a CPU had interrupts off: a busy kernel often
has, for short times.
"""
MIN_CPU_SHARE = 0.2
"""Share of the time that the host must have given to a CPU."""


@dataclass(frozen=True, slots=True)
class Vcpu:
    """The state of a virtual CPU, as the host shows it."""

    halted: bool | None
    """Whether it waits for an interrupt; None if the host does not show that."""
    user: bool | None
    """
    Whether it is in user space, where interrupts are always on; None if the host does
    not show that.
    """
    pc: int | None
    """Program counter."""
    cpu_time: float | None = None
    """Seconds that the host gave to it up to now."""
    interrupts: bool | None = None
    """Whether it takes interrupts; None if the host does not show that."""
    waiting: bool = False
    """
    Whether it is known to be at an instruction by which it waits, and, if it runs its
    idle task, not in an interrupt.
    """


@dataclass(frozen=True, slots=True)
class CpuSample:
    """One CPU at one time."""

    counters: bytes | None
    """Counters that only this CPU updates, and updates often; None if unknown."""
    idle: bool
    """Whether it runs its idle task."""
    vcpu: Vcpu | None = None
    """None if the host was not asked, or did not answer."""

    @property
    def in_kernel(self) -> bool:
        """Whether it was certainly in kernel code, and waited for no interrupt."""
        vcpu = self.vcpu
        if vcpu is None or vcpu.user is not False:
            return False
        if vcpu.halted:
            return self.is_halted_for_good
        return not (self.idle and vcpu.waiting)

    @property
    def is_halted_for_good(self) -> bool:
        """
        Whether no interrupt wakes it.

        A guest's spinlock does that for a moment, until another CPU kicks it
        (kvm_wait(), Linux arch/x86/kernel/kvm.c).
        """
        vcpu = self.vcpu
        return vcpu is not None and vcpu.halted is True and vcpu.interrupts is False

    @property
    def ignores_interrupts(self) -> bool:
        """Whether it was certainly running, in kernel code with interrupts off."""
        return (
            self.in_kernel
            and self.vcpu is not None
            and self.vcpu.interrupts is False
            and not self.vcpu.halted
            and not self.vcpu.waiting
        )

    @property
    def busy(self) -> bool:
        """Whether it was certainly running a task."""
        return self.vcpu is not None and not self.vcpu.halted and not self.idle


@dataclass(frozen=True, slots=True)
class Sample:
    """A VM at one time."""

    time: float
    """Seconds of a monotonic clock."""
    running: bool
    """Whether the VM runs: not paused, not saved, not suspended."""
    jiffies: int | None
    cpus: Mapping[int, CpuSample]
    """CPUs that are online, by their number."""


@dataclass(frozen=True, slots=True)
class Hang:
    """What is frozen."""

    cpus: tuple[int, ...]
    """CPUs; empty if only the kernel's clock stands still."""
    seconds: float
    """For how long."""
    counted: bool = True
    """Whether counters show that; if not, only registers do."""
    halted: bool = False
    """Whether they are halted with interrupts off."""

    def __str__(self) -> str:
        if not self.cpus:
            return f"the kernel's clock stands still for {self.seconds:.0f} s"
        many = len(self.cpus) > 1
        numbers = ", ".join(str(cpu) for cpu in self.cpus)
        what = "served no interrupt" if self.counted else "had interrupts off"
        if self.halted:
            what = "stood halted with interrupts off"
        return f"CPU{'s' if many else ''} {numbers} {what} for {self.seconds:.0f} s"


@dataclass(slots=True)
class _Standstill:
    """Something that stands still, and for how long."""

    value: object
    cpu_time: float | None
    halted: bool = True
    """Whether it was halted in each later sample, so that the host gave it no time."""
    seconds: float = 0.0
    samples: int = 0
    reported: bool = False

    def is_hang(
        self, after: float, cpu_time: float | None, samples: int = MIN_SAMPLES
    ) -> bool:
        if self.reported or self.seconds < after or self.samples < samples:
            return False
        if self.cpu_time is not None and cpu_time is not None and not self.halted:
            return cpu_time - self.cpu_time >= MIN_CPU_SHARE * after
        return True


class HangDetector:
    """
    Finds what is frozen, sample by sample.

    :param after: Seconds for which something must stand still.
    :param interval: Seconds from one sample to the next. If this process itself was
        delayed, a longer gap counts as at most two intervals.
    """

    def __init__(self, after: float, interval: float) -> None:
        self._after = after
        self._limit = 2 * interval
        self._still: dict[int | None, _Standstill] = {}
        """By CPU; None is the kernel's clock."""
        self._last: float | None = None
        self._passed = 0.0
        self._all_halted = False
        """Whether nothing is left that could wake a CPU; one alone may be offline."""

    def add(self, sample: Sample) -> Hang | None:
        """
        Take the next sample.

        :return: A hang that was not returned before.
        """
        passed = 0.0 if self._last is None else sample.time - self._last
        self._passed = min(passed, self._limit)
        self._last = sample.time
        self._all_halted = all(item.is_halted_for_good for item in sample.cpus.values())
        frozen = [cpu for cpu, it in sample.cpus.items() if self._is_frozen(cpu, it)]
        stopped = self._clock_stopped(sample)
        for cpu in set(self._still) - set(sample.cpus) - {None}:
            del self._still[cpu]
        if not sample.running:
            self._still.clear()
            return None
        if not frozen and not stopped:
            return None
        keys: tuple[int | None, ...] = tuple(frozen) or (None,)
        seconds = max(self._still[key].seconds for key in keys)
        # The clock stands still because they do.
        for key in (*frozen, None):
            if key in self._still:
                self._still[key].reported = True
        counted = all(sample.cpus[cpu].counters is not None for cpu in frozen)
        halted = bool(frozen) and all(self._still[cpu].halted for cpu in frozen)
        return Hang(tuple(sorted(frozen)), seconds, counted, halted)

    def _is_frozen(self, cpu: int, item: CpuSample) -> bool:
        cpu_time = item.vcpu.cpu_time if item.vcpu else None
        if item.counters is None:
            halted = self._all_halted and item.in_kernel
            runs = item.ignores_interrupts or halted
            still = self._find(cpu, None, runs, cpu_time, halted)
            return still is not None and still.is_hang(
                self._after, cpu_time, MIN_SAMPLES_WITHOUT_COUNTERS
            )
        halted = item.vcpu is not None and item.vcpu.halted is True
        still = self._find(cpu, item.counters, item.in_kernel, cpu_time, halted)
        return still is not None and still.is_hang(self._after, cpu_time)

    def _clock_stopped(self, sample: Sample) -> bool:
        if sample.jiffies is None:
            return False
        busy = any(item.busy for item in sample.cpus.values())
        times = [item.vcpu.cpu_time for item in sample.cpus.values() if item.vcpu]
        known = [seconds for seconds in times if seconds is not None]
        cpu_time = sum(known) if len(known) == len(times) else None
        still = self._find(None, sample.jiffies, busy, cpu_time)
        return still is not None and still.is_hang(self._after, cpu_time)

    def _find(
        self,
        key: int | None,
        value: object,
        runs: bool,
        cpu_time: float | None,
        halted: bool = False,
    ) -> _Standstill | None:
        """
        Return what stands still although it should not, unless it was reported.

        :param runs: Whether it should not stand still.
        :param halted: Whether it does not run in fact.
        """
        still = self._still.get(key)
        if still is not None and still.value != value:
            still = None
        elif still is not None and still.reported:
            return None
        if not runs:
            self._still.pop(key, None)
            return None
        if still is None:
            self._still[key] = _Standstill(value, cpu_time)
            return None
        still.halted = still.halted and halted
        still.seconds += self._passed
        still.samples += 1
        return still
