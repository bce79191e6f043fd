# SPDX-License-Identifier: GPL-2.0-or-later
"""
Telling a frozen kernel from one that idles: samples in, verdict out.

A CPU is frozen if it runs kernel code all the time and serves no interrupt, so
that nothing moves which only it moves. That it runs is what the host knows: a CPU
that waits for an interrupt is halted, and without a tick its counters stand still
for as long as there is nothing to do.

No single sample proves anything: a host that is overloaded lets a healthy VM stand
still, too. What counts is the time that passed between samples of which each found
the CPU running, and the time that the host gave to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["CpuSample", "Hang", "HangDetector", "Sample", "Vcpu"]

MIN_SAMPLES = 5
"""Samples that must agree."""
RAN_SHARE = 0.2
"""Share of the time that the host must have given to a CPU."""


@dataclass(frozen=True, slots=True)
class Vcpu:
    """What the host knows of a virtual CPU."""

    halted: bool | None
    """Whether it waits for an interrupt; None if the host does not tell."""
    user: bool
    """Whether it is in user space, where interrupts are always on."""
    pc: int | None
    """Program counter."""
    ran: float | None = None
    """Seconds that the host gave to it up to now."""


@dataclass(frozen=True, slots=True)
class CpuSample:
    """One CPU at one time."""

    counters: bytes
    """What only this CPU changes, and not for long without."""
    idle: bool
    """Whether it runs its idle task."""
    vcpu: Vcpu | None
    """None if the host was not asked, or did not answer."""

    @property
    def in_kernel(self) -> bool:
        """Whether it was certainly running, and in kernel code."""
        if self.vcpu is None or self.vcpu.user:
            return False
        # Where the host does not tell, the idle task is taken to wait.
        return not (self.idle if self.vcpu.halted is None else self.vcpu.halted)

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
    """CPUs; none if only the kernel's clock stands still."""
    seconds: float
    """For how long."""

    def __str__(self) -> str:
        if not self.cpus:
            return f"the kernel's clock stands still for {self.seconds:.0f} s"
        many = len(self.cpus) > 1
        numbers = ", ".join(str(cpu) for cpu in self.cpus)
        return (
            f"CPU{'s' if many else ''} {numbers} served no interrupt "
            f"for {self.seconds:.0f} s"
        )


@dataclass(slots=True)
class _Still:
    """Something that stands still, and since when."""

    value: object
    ran: float | None
    seconds: float = 0.0
    samples: int = 0
    busy: bool = False
    pcs: set[int | None] = field(default_factory=set)
    told: bool = False

    def is_hang(self, after: float, ran: float | None) -> bool:
        if self.told or self.seconds < after or self.samples < MIN_SAMPLES:
            return False
        if self.ran is not None and ran is not None:
            return ran - self.ran >= RAN_SHARE * after
        return True


class HangDetector:
    """
    Looks at one sample after the other.

    :param after: Seconds for which something must stand still.
    :param interval: Seconds from one sample to the next; of a longer pause, which
        means that we stood still ourselves, no more than twice that counts.
    """

    def __init__(self, after: float, interval: float) -> None:
        self._after = after
        self._limit = 2 * interval
        self._cpus: dict[int, _Still] = {}
        self._clock: _Still | None = None
        self._last: float | None = None

    def look(self, sample: Sample) -> Hang | None:
        """
        Look at the next sample.

        :return: What is frozen and was not told before.
        """
        passed = 0.0 if self._last is None else sample.time - self._last
        passed = min(passed, self._limit)
        self._last = sample.time
        frozen = [
            cpu for cpu, item in sample.cpus.items() if self._cpu(cpu, item, passed)
        ]
        for cpu in set(self._cpus) - set(sample.cpus):
            del self._cpus[cpu]
        stopped = self._clock_stopped(sample, passed)
        if not sample.running:
            self._cpus.clear()
            self._clock = None
            return None
        if frozen:
            for cpu in frozen:
                self._cpus[cpu].told = True
            if self._clock is not None:
                self._clock.told = True  # It stands still because they do.
            seconds = max(self._cpus[cpu].seconds for cpu in frozen)
            return Hang(tuple(sorted(frozen)), seconds)
        if stopped and self._clock is not None:
            self._clock.told = True
            return Hang((), self._clock.seconds)
        return None

    def _cpu(self, cpu: int, item: CpuSample, passed: float) -> bool:
        still = self._cpus.get(cpu)
        ran = item.vcpu.ran if item.vcpu else None
        if still is not None and still.value == item.counters and still.told:
            return False
        if not item.in_kernel:
            self._cpus.pop(cpu, None)
            return False
        if still is None or still.value != item.counters:
            self._cpus[cpu] = _Still(item.counters, ran)
            return False
        still.seconds += passed
        still.samples += 1
        still.busy = still.busy or not item.idle
        still.pcs.add(item.vcpu.pc if item.vcpu else None)
        # An instruction that waits without the host's help (MWAIT) looks like
        # running; in the idle task, at always the same place, it is waiting.
        if not still.busy and len(still.pcs) == 1:
            return False
        return still.is_hang(self._after, ran)

    def _clock_stopped(self, sample: Sample, passed: float) -> bool:
        if sample.jiffies is None:
            return False
        still = self._clock
        if still is not None and still.value == sample.jiffies and still.told:
            return False
        busy = [item.vcpu for item in sample.cpus.values() if item.busy]
        if not busy:
            self._clock = None
            return False
        every = [item.vcpu.ran for item in sample.cpus.values() if item.vcpu]
        known = [ran for ran in every if ran is not None]
        ran = sum(known) if len(known) == len(every) else None
        if still is None or still.value != sample.jiffies:
            self._clock = _Still(sample.jiffies, ran)
            return False
        still.seconds += passed
        still.samples += 1
        return still.is_hang(self._after, ran)
