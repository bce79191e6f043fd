# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes the samples of a VM in which the hang detector finds what is frozen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.errors import NotCapturedError, TargetError
from kmemdump.watch.hang_detector import CpuSample, Hang, HangDetector, Sample, Vcpu
from kmemdump.watch.vcpus import VcpuThreads
from kmemdump.watch.vm_control import VmControl
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["HangSampler"]

_INTERVAL = 1.0
"""Seconds between two samples."""
_INTERVAL_OF_SUSPECTS = 0.25


class HangSampler:
    """
    Samples of one kernel.

    :param after: Seconds for which something must be frozen.
    """

    def __init__(self, control: VmControl, marks: VmMarks, after: float) -> None:
        self._control = control
        self._marks = marks
        target = control.target
        self._memory = target.memory
        self._threads = VcpuThreads(target.client, arch_from_elf(target.machine))
        self._detector = HangDetector(after, _INTERVAL)
        self._cpus: dict[int, CpuSample] = {}
        """The last sample, and the time then."""
        self._jiffies: int | None = None
        self._moved: set[int | None] = set()
        """
        CPUs that were seen to move, or to take interrupts; None is the kernel's clock.
        """
        self._suspects = False
        """Whether a CPU without counters had interrupts off in the last sample."""
        self.count = 0
        """Samples since the last alarm; the caller sets it back."""

    @property
    def interval(self) -> float:
        """Seconds until the next sample."""
        return _INTERVAL_OF_SUSPECTS if self._suspects else _INTERVAL

    def has_moved(self, hang: Hang) -> bool:
        """Return whether what is frozen was seen to move before."""
        return not self._moved.isdisjoint(hang.cpus or (None,))

    def sample(self) -> Hang | None:
        """Take a sample, and return what is frozen."""
        progress, memory = self._marks.progress, self._memory
        if not progress.has_counters:
            return self._sample_without_counters()
        try:
            cpus, jiffies = progress.cpus(memory), progress.jiffies(memory)
        except NotCapturedError:
            return None
        known = cpus.keys() & self._cpus.keys()
        moved = {cpu for cpu in known if self._cpus[cpu].counters != cpus[cpu].counters}
        stands_still = jiffies == self._jiffies or moved != known
        self._moved |= moved
        if self._jiffies not in (None, jiffies):
            self._moved.add(None)
        self._cpus, self._jiffies = cpus, jiffies
        vcpus = self._read_vcpus() if stands_still else ()
        samples = {
            # QEMU numbers CPUs as Linux does.
            cpu: replace(item, vcpu=self._seen_idling(cpu, item.idle, vcpus))
            for cpu, item in cpus.items()
        }
        self.count += 1
        sample = Sample(time.monotonic(), vcpus is not None, jiffies, samples)
        return self._detector.add(sample)

    def _sample_without_counters(self) -> Hang | None:
        """Take a sample of the VM's CPUs, and return which ignore interrupts."""
        vcpus = self._read_vcpus()
        samples = {
            number: CpuSample(None, False, self._seen_waiting(vcpu))
            for number, vcpu in enumerate(vcpus or ())
        }
        self._suspects = any(item.ignores_interrupts for item in samples.values())
        self._moved |= {
            number
            for number, item in samples.items()
            if item.vcpu is not None and (item.vcpu.user or item.vcpu.interrupts)
        }
        self.count += 1
        sample = Sample(time.monotonic(), vcpus is not None, None, samples)
        return self._detector.add(sample)

    def _seen_idling(
        self, cpu: int, idle: bool, vcpus: Sequence[Vcpu | None] | None
    ) -> Vcpu | None:
        """Note whether a CPU that runs its idle task waits, which takes a look."""
        vcpu = vcpus[cpu] if vcpus and cpu < len(vcpus) else None
        if vcpu is None or not idle or vcpu.user or vcpu.halted or vcpu.pc is None:
            return vcpu
        try:
            waiting = self._marks.progress.is_idling(self._memory, cpu, vcpu.pc)
        except NotCapturedError:
            return None
        return replace(vcpu, waiting=waiting)

    def _seen_waiting(self, vcpu: Vcpu | None) -> Vcpu | None:
        """Note whether a CPU with interrupts off is at an instruction that waits."""
        if vcpu is None or vcpu.interrupts is not False or vcpu.pc is None:
            return vcpu
        waiting = self._marks.progress.is_waiting(self._memory, vcpu.pc)
        return replace(vcpu, waiting=waiting)

    def _read_vcpus(self) -> Sequence[Vcpu | None] | None:
        """Return the state of the VM's CPUs; None if the VM does not run."""
        control = self._control
        if not control.answers:
            return ()
        try:
            if control.target.status() != "running":
                return None
            return self._threads.read()
        except TargetError as error:
            control.note_error(error)
            return ()
