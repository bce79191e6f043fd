# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches one VM: waits for its kernel, marks it, monitors it, writes its dump."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kmemdump.errors import FormatError, KmemdumpError, TargetError, UsageError
from kmemdump.marking.selection import Selection
from kmemdump.targets.qmp import QmpTarget
from kmemdump.targets.qmp_client import QmpTimeoutError
from kmemdump.text import format_size
from kmemdump.watch.death.act import wait_for_reset
from kmemdump.watch.death.handler import DeathHandler
from kmemdump.watch.end_causes import DumpCause
from kmemdump.watch.events import EventName
from kmemdump.watch.monitor import Monitor
from kmemdump.watch.reporter import Reporter, StoppedError, first_line
from kmemdump.watch.settings import Settings
from kmemdump.watch.sources import VmAddress
from kmemdump.watch.vm_control import VmControl
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["Outcome", "Watcher"]

_QMP_TIMEOUT = 5.0
_CONNECT_PATIENCE = 30.0
_RETRY = (1.0, 2.0, 3.0, 5.0)
"""Seconds between attempts to attach."""
_REPEAT = 60.0
"""Seconds after which the lack of a kernel is reported again."""
_CLOCK_PATIENCE = 5.0
"""Seconds in which the clock of a running kernel must move."""
_POLL = 0.25


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
        self._deaths = DeathHandler(address.name, settings, reporter)
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
        cores = tuple(self._deaths.dump.cores)
        return Outcome(cores, "; ".join(problems) or None, self._watched)

    def _connect(self) -> QmpTarget:
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
        marks: VmMarks | None = None
        boots = True
        while boots or self._waits_for_boot(control):
            marks = _wait_for_kernel(control, self._selection, self._reporter, marks)
            if marks is None:
                return
            self._watched = True
            boots = self._watch_kernel(control, marks)

    def _waits_for_boot(self, control: VmControl) -> bool:
        """Wait until a VM that stands still is reset; return whether it was."""
        if self._settings.until_dead:
            return False
        while not control.gone:
            if wait_for_reset(control, self._reporter).boots_again:
                return True
        return False

    def _watch_kernel(self, control: VmControl, marks: VmMarks) -> bool:
        """Watch one kernel; return whether the VM boots another one."""
        reporter = self._reporter
        monitor = Monitor(control, marks, self._settings, reporter)
        if monitor.read_kernel().leaving and control.status() == "shutdown":
            text = "has shut down in an orderly way already: no core image"
            reporter.report(text, EventName.ORDERLY)
            return False
        while True:
            found = monitor.run()
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


def _wait_for_kernel(
    control: VmControl,
    selection: Selection,
    reporter: Reporter,
    before: VmMarks | None,
) -> VmMarks | None:
    """
    Wait for a kernel, and mark it.

    :param selection: What to mark.
    :param before: The previous kernel, which may still be in memory.
    :return: None if the VM ends first.
    :raises UsageError: If the selection makes no sense.
    :raises FormatError: If the vmlinux is of no use.
    :raises StoppedError: If the watch should stop.
    """
    vmlinux = str(selection.vmlinux)
    attempt = 0
    started = time.monotonic()
    reports = 0
    while not control.gone:
        reporter.show_status("waiting for a kernel")
        control.target.forget()
        control.drop_events()
        try:
            marks = _attach(control, selection, reporter, before)
        except UsageError:
            raise
        except KmemdumpError as error:
            if isinstance(error, FormatError) and error.where == vmlinux:
                raise  # It will always be the wrong one.
            if reports == 0:
                text = f"waiting for a kernel ({first_line(error)})"
                reporter.report(text, EventName.WAITING)
                reports = 1
            elif reports == 1 and time.monotonic() - started > _REPEAT:
                text = f"still waiting for a kernel: {first_line(error)}"
                reporter.report(text, EventName.WAITING)
                reports = 2
        else:
            control.restore_reboot_action()
            _report_marks(marks, reporter)
            return marks
        reporter.sleep(_RETRY[min(attempt, len(_RETRY) - 1)])
        attempt += 1
    reporter.report_problem("QEMU ended before there was a kernel to mark")
    return None


def _attach(
    control: VmControl,
    selection: Selection,
    reporter: Reporter,
    before: VmMarks | None,
) -> VmMarks:
    target = control.target
    status = target.status()
    if status in ("prelaunch", "inmigrate", "preconfig"):
        raise TargetError(f"the VM is not started (status {status})")
    if before is not None and target.vmcoreinfo() == before.info:
        # Very likely what the reset left in memory.
        _wait_for_clock(before.clock_watch(), reporter)
    marks = VmMarks(target, selection)
    if before is not None:
        _wait_for_clock(marks.clock_watch(), reporter)
    return marks


def _wait_for_clock(has_moved: Callable[[], bool], reporter: Reporter) -> None:
    deadline = time.monotonic() + _CLOCK_PATIENCE
    while not has_moved():
        if time.monotonic() > deadline:
            raise TargetError("the kernel in memory is that of before the reset")
        reporter.sleep(_POLL)


def _report_marks(marks: VmMarks, reporter: Reporter) -> None:
    areas = marks.capture.marking.areas
    text = (
        f"marked {marks.info.osrelease}: {len(areas)} areas, "
        f"{len(marks.registry)} regions, {format_size(marks.size)}"
    )
    if marks.packed_size:
        text += f" and {format_size(marks.packed_size)} of symbols and types"
    incomplete = [area for area in areas if area.reason]
    if incomplete and len(incomplete) < len(areas) - 1:
        text += f"; incomplete: {', '.join(area.name for area in incomplete)}"
    if marks.lacking is not None:
        text += f"; its state is known from its log alone: {marks.lacking}"
    reporter.report(
        text,
        EventName.MARKED,
        release=marks.info.osrelease,
        regions=len(marks.registry),
        size=marks.size,
        complete=not incomplete,
    )
    if marks.capture.found_vmlinux is not None:
        reporter.report(f"symbols and types of {marks.capture.found_vmlinux}")
    for area in incomplete:
        reporter.show_status(f"area {area.name}: {area.reason}")
    refused = marks.registry.not_held()
    if refused:
        reporter.report(f"{len(refused)} regions are not held: {refused[0].reason}")
    if marks.lacking is None and marks.progress.unknown:
        unknown = ", ".join(marks.progress.unknown)
        reporter.report(f"not found in this kernel: {unknown}")
    reporter.show_status("watching")
