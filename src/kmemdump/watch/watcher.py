# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches one VM: waits for its kernel, marks it, monitors it, writes its dump."""

from __future__ import annotations

import time
from dataclasses import dataclass

from kmemdump.errors import KmemdumpError
from kmemdump.kernel.build_cache import BuildCache
from kmemdump.marking.selection import Selection
from kmemdump.targets.qmp_channel import QmpTimeoutError
from kmemdump.targets.vm import VmTarget
from kmemdump.watch.death.act import wait_for_reset
from kmemdump.watch.death.handler import DeathHandler
from kmemdump.watch.end_causes import DumpCause
from kmemdump.watch.first_look import FirstLook, MarkedKernel
from kmemdump.watch.monitor import Monitor
from kmemdump.watch.reporter import Reporter, StoppedError, first_line
from kmemdump.watch.settings import Settings
from kmemdump.watch.sources import VmAddress
from kmemdump.watch.vm_control import VmControl

__all__ = ["Outcome", "Watcher"]

_QMP_TIMEOUT = 5.0
_CONNECT_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How watching a VM ended."""

    problem: str | None = None
    """What is missing."""
    watched: bool = False
    """Whether there was a kernel that could be marked."""


class Watcher:
    """
    Watches one VM.

    :param address: How it is reached; the names of its core images start with its name.
    :param selection: What to mark.
    """

    def __init__(
        self,
        address: VmAddress,
        selection: Selection,
        settings: Settings,
        reporter: Reporter,
    ) -> None:
        self._address = address
        self._selection = selection
        self._settings = settings
        self._reporter = reporter
        self._deaths = DeathHandler(address.name, address.life, settings, reporter)
        self._watched = False

    def run(self) -> Outcome:
        """Watch until the VM ends, its kernel has died, or the watch is stopped."""
        problems = self._reporter.problems
        try:
            with self._connect() as target:
                self._watch(VmControl(target, self._reporter))
        except StoppedError:
            pass
        except KmemdumpError as error:
            problems.append(str(error))
        return Outcome("; ".join(problems) or None, self._watched)

    def _connect(self) -> VmTarget:
        reporter = self._reporter
        deadline = time.monotonic() + _CONNECT_PATIENCE
        reported = False
        while True:
            reporter.show_status("connecting")
            try:
                return self._address.connect(_QMP_TIMEOUT)
            except QmpTimeoutError as error:
                # QEMU may be busy with another client, which may disconnect.
                reporter.check_stopping()
                if time.monotonic() > deadline:
                    raise
                if not reported:
                    reporter.report(f"{first_line(error)}; trying again")
                reported = True
            reporter.sleep(1.0)

    def _watch(self, control: VmControl) -> None:
        folder = self._settings.builds
        builds = BuildCache(folder) if folder is not None else None
        first_look = FirstLook(control, self._selection, self._reporter, builds)
        boots = True
        self._deaths.go_on(control)
        while boots or self._waits_for_boot(control):
            found = first_look.wait()
            if found is None:
                return
            self._watched = True
            boots = self._watch_kernel(control, found)

    def _waits_for_boot(self, control: VmControl) -> bool:
        """Wait until a VM that stands still is reset; return whether it was."""
        if self._settings.until_dead:
            return False
        while not control.gone:
            if wait_for_reset(control, self._reporter).boots_again:
                return True
        return False

    def _watch_kernel(self, control: VmControl, kernel: MarkedKernel) -> bool:
        """Watch one kernel; return whether the VM boots another one."""
        reporter, marks = self._reporter, kernel.marks
        monitor = Monitor(control, kernel, self._settings, reporter)
        pending = self._deaths.pending(marks)
        while True:
            found, pending = pending or monitor.run(), None
            if isinstance(found, DumpCause):
                end = self._deaths.handle(control, marks, found)
                if self._deaths.postponed:
                    monitor.postpone_oops()
            else:
                end = found
            if end is not None:
                if end.text:
                    reporter.report(end.text, end.event)
                return end.boots_again
