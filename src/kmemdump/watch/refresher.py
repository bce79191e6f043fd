# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps the marks of a kernel fresh, and captures it when somebody asks for that."""

from __future__ import annotations

import time
from collections.abc import Mapping

from kmemdump.coreimage import Death
from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.errors import KmemdumpError, TargetError
from kmemdump.marking.pace import Pace
from kmemdump.sealing import Seal
from kmemdump.text import format_size
from kmemdump.watch.answers import describe_lost
from kmemdump.watch.control.commands import CaptureCommand, Command, RefreshCommand
from kmemdump.watch.events import EventName
from kmemdump.watch.reporter import Reporter, first_line
from kmemdump.watch.vm_control import VmControl
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["Refresher"]


class Refresher:
    """
    Looks at one kernel again and again.

    :param pace: Counts what looks cost, also those that somebody asks for.
    :param seal: How core images are sealed, if who asks for one does not say.
    """

    def __init__(
        self,
        control: VmControl,
        marks: VmMarks,
        reporter: Reporter,
        pace: Pace,
        seal: Seal | None = None,
    ) -> None:
        self._control = control
        self._marks = marks
        self._reporter = reporter
        self._pace = pace
        self._seal = seal
        self._failed = False

    def refresh(self, request: int | None = None) -> str | None:
        """
        Look at the kernel again.

        :param request: Number of the request for it, which the event answers.
        :return: Why that failed.
        """
        control = self._control
        if control.status() != "running":
            return "the VM does not run, or QEMU does not answer"  # Nothing changes.
        marks = self._marks
        started, cpu = time.monotonic(), time.process_time()
        lacking, lost = marks.lacking, marks.answers.lost
        try:
            marks.refresh()
        except KmemdumpError as error:
            if isinstance(error, TargetError):
                control.note_error(error)
            if not self._failed:
                self._reporter.report_problem(
                    f"cannot refresh the marks: {first_line(error)}"
                )
            self._failed = True
            return first_line(error)
        finally:
            interval = self._pace.count(time.process_time() - cpu)
        self._failed = False
        if lacking is not None and marks.lacking is None:
            self._reporter.report("its variables and types were found after all")
        self._report_lost(lost)
        seconds = time.monotonic() - started
        self._reporter.report(
            f"{marks.info.osrelease}: {len(marks.registry)} regions, "
            f"{format_size(marks.size)}, refreshed at "
            f"{marks.capture.time:%H:%M:%S} UTC in {seconds:.2f} s",
            EventName.REFRESHED,
            release=marks.info.osrelease,
            regions=len(marks.registry),
            size=marks.size,
            seconds=round(seconds, 3),
            interval=round(interval, 3),
            request=request,
        )
        return None

    def _report_lost(self, before: Mapping[tuple[str, str], str]) -> None:
        """Report which answers a refresh lost, or found again."""
        lost = self._marks.answers.lost
        new = {key: why for key, why in lost.items() if key not in before}
        if new:
            text = f"the marks lost answers: {describe_lost(new)}"
            self._reporter.report_problem(text)
        elif before and not lost:
            self._reporter.report("the marks have all their answers again")

    def obey(self, command: Command) -> None:
        """Do what the supervisor asks for."""
        if isinstance(command, RefreshCommand):
            problem = self.refresh(command.request)
        else:
            problem = self._capture(command)
        if problem is not None:
            self._reporter.report(problem, EventName.NO_CORE, request=command.request)

    def _capture(self, command: CaptureCommand) -> str | None:
        """Write a core image of the kernel as it runs; return why that failed."""
        problem = self.refresh()
        if problem is not None:
            return problem
        capture, registry = self._marks.capture, self._marks.registry
        seal = self._seal
        if command.rehearsal:
            seal = seal and seal.and_for(command.recipients)
        elif command.recipients:
            seal = Seal(command.recipients)
        try:
            missing = capture.save(
                command.path,
                regions=[*registry],
                packed=self._marks.packed,
                death=Death("captured on request", DeathKind.REQUESTED),
                seal=seal,
            )
            size = command.path.stat().st_size
        except (KmemdumpError, OSError) as error:
            return first_line(error)
        done = "rehearsed" if command.rehearsal else "captured"
        self._reporter.report(
            f"{done} on request: {command.path}, {format_size(size)}",
            EventName.CAPTURED,
            release=self._marks.info.osrelease,
            core=None if command.rehearsal else command.path,
            size=size,
            complete=capture.marking.complete and not missing,
            request=command.request,
        )
        return None
