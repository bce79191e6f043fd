# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of one kernel of a VM, from when it is marked until it dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kmemdump.errors import NotCapturedError
from kmemdump.memory.physical import Memory
from kmemdump.watch.hang_detector import CpuSample, Hang, HangDetector, Sample, Vcpu
from kmemdump.watch.liveness import CpuProgress, KernelState
from kmemdump.watch.vcpus import VcpuThreads
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["SAMPLE_INTERVAL", "VmState"]

SAMPLE_INTERVAL = 1.0
"""Seconds between two samples of the hang detector."""
_LOST = 1.0
"""Seconds in which an event may explain why a kernel is not in memory any more."""

ReadVcpus = Callable[[], Sequence[Vcpu | None] | None]
"""Returns the state of the VM's CPUs; None if the VM does not run."""


class VmState:
    """
    The state of a VM while one kernel runs in it.

    :param memory: The VM's.
    :param threads: Its CPUs.
    :param hang_after: Seconds for which the kernel must be frozen; 0: never mind.
    :param interval: Seconds between two refreshes of the marks.
    """

    def __init__(
        self,
        marks: VmMarks,
        memory: Memory,
        threads: VcpuThreads,
        hang_after: float,
        interval: float,
    ) -> None:
        self.marks = marks
        self.threads = threads
        self._memory = memory
        self._detector = HangDetector(hang_after, SAMPLE_INTERVAL)
        self._last = KernelState(True, None, False, False, False)
        self._before: dict[int, CpuProgress] = {}
        self._jiffies: int | None = None
        self._lost_since: float | None = None
        first = self.read_kernel()
        self.booted = first.booted
        """Whether the kernel had come up when it was marked."""
        self.oopsed = first.oopsed
        """Whether an oops of it was seen."""
        self.nmi = ""
        """Why QEMU sent it an NMI, of which it may panic."""
        self.nmi_at = 0.0
        self.samples = 0
        """Samples of the hang detector since the last alarm."""
        self.next_sample = time.monotonic()
        self.next_refresh = self.next_sample + interval
        self.refresh_failed = False

    def read_kernel(self) -> KernelState:
        """Return the kernel's state, or its last one if it is gone."""
        state = self.marks.read_kernel()
        if state is not None and state.same:
            self._last, self._lost_since = state, None
        elif self._lost_since is None:
            self._lost_since = time.monotonic()
        return self._last

    @property
    def lost(self) -> bool:
        """Whether the kernel is not in memory any more, and no event explains it."""
        since = self._lost_since
        return since is not None and time.monotonic() - since > _LOST

    def log_head(self) -> bytes:
        """Return something that changes with each message that the kernel logs."""
        try:
            return self.marks.liveness.log_head(self._memory)
        except NotCapturedError:
            return b""

    def find_hang(self, read_vcpus: ReadVcpus) -> Hang | None:
        """
        Take a sample, and return what is frozen.

        :param read_vcpus: Only called if something stands still.
        """
        liveness = self.marks.liveness
        try:
            cpus, jiffies = liveness.cpus(self._memory), liveness.jiffies(self._memory)
        except NotCapturedError:
            return None
        stands_still = jiffies == self._jiffies or any(
            cpu in self._before and self._before[cpu].counters == progress.counters
            for cpu, progress in cpus.items()
        )
        self._before, self._jiffies = cpus, jiffies
        vcpus = read_vcpus() if stands_still else ()
        samples = {
            # QEMU numbers CPUs as Linux does.
            cpu: CpuSample(
                progress.counters,
                progress.idle,
                vcpus[cpu] if vcpus and cpu < len(vcpus) else None,
            )
            for cpu, progress in cpus.items()
        }
        self.samples += 1
        sample = Sample(time.monotonic(), vcpus is not None, jiffies, samples)
        return self._detector.add(sample)
