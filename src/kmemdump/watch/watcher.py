# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches one VM: waits for its kernel, marks it, monitors it, writes its dump."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from kmemdump.errors import KmemdumpError
from kmemdump.marking.selection import Selection
from kmemdump.targets.qmp import QmpTarget
from kmemdump.targets.qmp_client import QmpTimeoutError
from kmemdump.watch.boot import wait_for_kernel
from kmemdump.watch.dump import DumpWriter
from kmemdump.watch.end_causes import DumpCause, WatchEnd, act_on_vm
from kmemdump.watch.monitor import Monitor
from kmemdump.watch.reporter import Reporter, StoppedError, first_line
from kmemdump.watch.settings import Settings
from kmemdump.watch.vm_control import VmControl
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["Outcome", "Watcher"]

_QMP_TIMEOUT = 5.0
_CONNECT_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How watching a VM ended."""

    cores: tuple[Path, ...] = ()
    problem: str | None = None
    """What is missing."""
    watched: bool = False
    """Whether there was a kernel that could be marked."""


class Watcher:
    """
    Watches one VM.

    :param name: Of the VM: the first part of the names of its core images.
    :param socket: Its QMP socket.
    :param selection: What to mark.
    """

    def __init__(
        self,
        name: str,
        socket: Path,
        selection: Selection,
        settings: Settings,
        reporter: Reporter,
    ) -> None:
        self._socket = socket
        self._selection = selection
        self._settings = settings
        self._reporter = reporter
        self._dump = DumpWriter(name, settings.folder, reporter)
        self._watched = False

    def run(self) -> Outcome:
        """Watch until the VM ends, its kernel has died, or the watch is stopped."""
        problems = self._reporter.problems
        try:
            target = self._connect()
            try:
                self._watch(VmControl(target, self._reporter))
            finally:
                target.close()
        except StoppedError:
            pass
        except KmemdumpError as error:
            problems.append(str(error))
        cores = tuple(self._dump.cores)
        return Outcome(cores, "; ".join(problems) or None, self._watched)

    def _connect(self) -> QmpTarget:
        reporter = self._reporter
        deadline = time.monotonic() + _CONNECT_PATIENCE
        reported = False
        while True:
            reporter.show_status("connecting")
            try:
                return QmpTarget(self._socket, _QMP_TIMEOUT)
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
        marks: VmMarks | None = None
        boots = True
        while boots:
            marks = wait_for_kernel(control, self._selection, self._reporter, marks)
            if marks is None:
                return
            self._watched = True
            boots = self._watch_kernel(control, marks)

    def _watch_kernel(self, control: VmControl, marks: VmMarks) -> bool:
        """Watch one kernel; return whether the VM boots another one."""
        reporter = self._reporter
        monitor = Monitor(control, marks, self._settings, reporter)
        if monitor.read_kernel().leaving and control.status() == "shutdown":
            reporter.report("has shut down in an orderly way already: no core image")
            return False
        while True:
            found = monitor.run()
            if isinstance(found, DumpCause):
                end = self._dump_kernel(control, marks, found)
            else:
                end = found
            if end is not None:
                if end.text:
                    reporter.report(end.text)
                return end.boots_again

    def _dump_kernel(
        self, control: VmControl, marks: VmMarks, cause: DumpCause
    ) -> WatchEnd | None:
        """Write a core image; return None if the kernel may go on running."""
        was_running = control.stop()
        self._dump.write(marks, cause)
        if cause.oops:
            if was_running:
                control.cont()
            return None
        return act_on_vm(self._settings.action, control, cause.vm, self._reporter)
