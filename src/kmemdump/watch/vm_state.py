# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of one kernel from when it is marked until it dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kmemdump.errors import NotCapturedError
from kmemdump.memory.physical import Memory
from kmemdump.watch.hang_detector import CpuSample, Hang, HangDetector, Sample, Vcpu
from kmemdump.watch.liveness import CpuSigns, Signs
from kmemdump.watch.vcpus import VcpuThreads
from kmemdump.watch.vm_marks import Keeper

__all__ = ["SAMPLE_INTERVAL", "Life"]

SAMPLE_INTERVAL = 1.0
"""Seconds between two looks at what should move."""
_LOST = 1.0
"""Seconds in which an event can tell why a kernel is not in memory any more."""

AskVcpus = Callable[[], Sequence[Vcpu | None] | None]
"""Returns what QEMU knows of its CPUs; None if the VM does not run."""


class Life:
    """
    A kernel's life.

    :param memory: The VM's.
    :param threads: Its CPUs.
    :param hang_after: Seconds for which it must be frozen; 0: never mind.
    :param interval: Seconds between two refreshes of the marks.
    """

    def __init__(
        self,
        keeper: Keeper,
        memory: Memory,
        threads: VcpuThreads,
        hang_after: float,
        interval: float,
    ) -> None:
        self.keeper = keeper
        self.threads = threads
        self._memory = memory
        self._detector = HangDetector(hang_after, SAMPLE_INTERVAL)
        self._last = Signs(True, None, False, False, False)
        self._before: dict[int, CpuSigns] = {}
        self._jiffies: int | None = None
        self._lost_since: float | None = None
        first = self.signs()
        self.booted = first.booted
        """Whether it had come up when it was marked."""
        self.oopsed = first.oopsed
        """Whether an oops of it was seen."""
        self.nmi = ""
        """Why QEMU sent it an NMI of which it may panic."""
        self.nmi_at = 0.0
        self.next_sample = time.monotonic()
        self.next_refresh = self.next_sample + interval
        self.refresh_failed = False

    def signs(self) -> Signs:
        """Return the vital signs, or the last ones of a kernel that is gone."""
        signs = self.keeper.signs()
        if signs is not None and signs.same:
            self._last, self._lost_since = signs, None
        elif self._lost_since is None:
            self._lost_since = time.monotonic()
        return self._last

    @property
    def lost(self) -> bool:
        """Whether the kernel is not in memory any more, and nothing tells why."""
        since = self._lost_since
        return since is not None and time.monotonic() - since > _LOST

    def log_head(self) -> bytes:
        """Return something that changes with each message that the kernel logs."""
        try:
            return self.keeper.vitals.log_head(self._memory)
        except NotCapturedError:
            return b""

    def find_hang(self, ask: AskVcpus) -> Hang | None:
        """
        Look whether everything moves.

        :param ask: Only called if something stands still.
        """
        vitals = self.keeper.vitals
        try:
            cpus, jiffies = vitals.cpus(self._memory), vitals.jiffies(self._memory)
        except NotCapturedError:
            return None
        stands_still = jiffies == self._jiffies or any(
            cpu in self._before and self._before[cpu].counters == signs.counters
            for cpu, signs in cpus.items()
        )
        self._before, self._jiffies = cpus, jiffies
        vcpus = ask() if stands_still else ()
        samples = {
            # QEMU numbers CPUs as Linux does.
            cpu: CpuSample(
                signs.counters,
                signs.idle,
                vcpus[cpu] if vcpus and cpu < len(vcpus) else None,
            )
            for cpu, signs in cpus.items()
        }
        sample = Sample(time.monotonic(), vcpus is not None, jiffies, samples)
        return self._detector.look(sample)
