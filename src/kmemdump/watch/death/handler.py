# SPDX-License-Identifier: GPL-2.0-or-later
"""
From a death to acting on the VM, which waits until the core image is written.

Until then the VM stays paused, and nothing is lost: a disk that is full, read-only or
gone comes back.
"""

from __future__ import annotations

import time

from kmemdump.coreimage.folder import CoreFolder
from kmemdump.errors import OutputError
from kmemdump.text import format_duration
from kmemdump.watch.death.act import act_on_vm, wait_paused
from kmemdump.watch.death.facts import DeathFacts, read_facts
from kmemdump.watch.death.history import DeathHistory
from kmemdump.watch.death.pending import Pending
from kmemdump.watch.dump import DumpWriter
from kmemdump.watch.end_causes import DumpCause, VmAfterDeath, WatchEnd
from kmemdump.watch.events import EventFields, EventName
from kmemdump.watch.reporter import Reporter, StoppedError, first_line
from kmemdump.watch.settings import Settings, VmAction
from kmemdump.watch.vm_control import VmControl
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["DeathHandler"]

_LOOK_FOR_ROOM = 2.0
"""Seconds between two looks at the free space."""
_FIRST_RETRY = 4.0
_LAST_RETRY = 60.0
"""Seconds between two attempts to write; they double."""
_REMIND = 600.0
"""Seconds after which a VM that waits for its core image is reported again."""
_PATIENCE_FOR_COPY = 60.0
"""Seconds. QEMU has ended, and may be started again: somebody must watch that."""


class DeathHandler:
    """
    Handles the deaths of one VM.

    :param name: Name of the VM, with which the names of its core images start.
    :param life: Differs each time that the VM was started.
    """

    def __init__(
        self, name: str, life: str, settings: Settings, reporter: Reporter
    ) -> None:
        self._name = name
        self._life = life
        self._settings = settings
        self._reporter = reporter
        self._seal = settings.seal
        self._folder = CoreFolder(settings.folder, settings.limits)
        if self._seal is not None:
            self._folder.make_key()
        self.history = DeathHistory(settings.folder, name, tag=self._folder.tag)
        self.dump = DumpWriter(name, self._folder, reporter, self._seal)
        self.postponed = False
        """Whether the kernel survived something that has no core image yet."""
        self._is_first = True
        self._folder.remove_partial_files()
        self._folder.trim()

    def handle(
        self, control: VmControl, marks: VmMarks, cause: DumpCause
    ) -> WatchEnd | None:
        """
        Write a core image, and do what is to be done with the VM.

        :return: None if the same kernel may go on running.
        :raises StoppedError: If the watch should stop.
        """
        if self._seal is not None:
            self._folder.make_key()  # The disk may have been full before.
        if cause.survived and (problem := self.dump.find_problem(marks)) is not None:
            self._postpone(cause, problem)
            return None  # It is not worth a pause.
        if cause.survived:
            with control.paused():
                self._see_to_core(control, marks, cause, read_facts(marks, cause))
            return None
        if cause.found:
            return self._handle_found(control, marks, cause)
        control.stop()
        self.history.note_pending(Pending.of(self._life, marks, cause))
        self._save_history()
        end = self._see_to_core(control, marks, cause, read_facts(marks, cause))
        return end or self._act(control, cause)

    def _handle_found(
        self, control: VmControl, marks: VmMarks, cause: DumpCause
    ) -> WatchEnd | None:
        """Handle a death that was there before; the VM goes on as it was."""
        with control.paused():
            facts = read_facts(marks, cause)
            # A watcher that saw it die may have been stopped before it acted.
            is_ours = self.history.is_waiting(facts.id)
            end = self._see_to_core(control, marks, cause, facts)
        return end or (self._act(control, cause) if is_ours else self._leave())

    def pending(self, marks: VmMarks) -> DumpCause | None:
        """Return the death of this kernel for which a watch before paused the VM."""
        pending = self.history.pending
        return pending.to_cause() if pending and pending.is_of(marks) else None

    def go_on(self, control: VmControl) -> None:
        """Let a VM boot that a watch before paused, whose kernel cannot be found."""
        pending = self.history.pending
        if pending is None or (status := control.status()) is None:
            return
        cause = pending.to_cause()
        if cause is None or pending.life != self._life or status == "running":
            self.history.note_action(started=False)  # It is another story by now.
            self._save_history()
        elif cause.vm.boots or cause.vm is VmAfterDeath.WAITS_FOR_RESET:
            text = _without_core(cause, "the process that watched it was ended")
            fields = self._fields(cause, None)
            self._reporter.report_problem(text, EventName.NO_CORE, **fields)
            control.has_stopped = True
            end = self._act(control, cause)
            if end is not None and end.text:
                self._reporter.report(end.text, end.event)

    def _leave(self) -> WatchEnd:
        """Leave a VM as it is that was dead before anybody watched it."""
        self.history.note_action(started=False)
        self._save_history()
        return WatchEnd("it was dead before the watch began: left as it is")

    def _see_to_core(
        self, control: VmControl, marks: VmMarks, cause: DumpCause, facts: DeathFacts
    ) -> WatchEnd | None:
        """Return once there is a core image, or how the VM went on without one."""
        history, keep = self.history, self._settings.limits.keep
        known = history.core_of(facts.id)
        if known is None and self._is_first:
            # Only one that was there before may have been seen by another watch.
            path = self._folder.find_death(self._name, facts.id)
            known = path.name if path else None
        self._is_first = False
        if known is not None:
            self.postponed = False
            core = self._folder.path / known
            text = f"{cause.text}; {known} is of this very death"
            self._reporter.report(text, core=core)
            return None
        is_dumped = history.is_dumped(facts.signature, keep)
        history.note_death(
            facts.id,
            facts.signature,
            survived=cause.survived,
            ours=not cause.found or history.is_waiting(facts.id),
        )
        if is_dumped:
            return self._write(control, marks, cause, facts)
        self.postponed = False
        history.note_skipped(facts.signature)
        self._save_history()
        text = f"it is death {history.count(facts.signature)} of this cause"
        self._reporter.report(
            _without_core(cause, text), EventName.DEATH, **self._fields(cause, facts)
        )
        return None

    def _write(
        self, control: VmControl, marks: VmMarks, cause: DumpCause, facts: DeathFacts
    ) -> WatchEnd | None:
        """Write a core image, as often as it takes."""
        history, reporter = self.history, self._reporter
        waiting = _Waiting(reporter, self._fields(cause, facts))
        while isinstance(written := self.dump.write(marks, cause, facts), OutputError):
            text = _without_core(cause, first_line(written))
            ended = cause.vm is VmAfterDeath.ENDED or control.gone
            if cause.survived:
                self._postpone(cause, first_line(written), facts)
                return None
            if ended and waiting.seconds > _PATIENCE_FOR_COPY:
                reporter.report_problem(f"{text}; what was copied of the VM is lost")
                return WatchEnd()
            self._save_history()
            waiting.report(text, paused=not ended)
            try:
                end = self._wait_for_room(control, marks, waiting.next_delay())
            except StoppedError:
                reporter.report(f"{text}; left paused")
                raise
            if end is not None:
                reporter.report_problem(f"{text}; and it is too late for one")
                history.note_action(started=end.boots_again)
                self._save_history()
                return end
        self.postponed = False
        keep = self._settings.limits.keep
        history.note_core(facts.id, facts.signature, written.name, keep)
        self._save_history()
        return None

    def _postpone(
        self, cause: DumpCause, problem: str, facts: DeathFacts | None = None
    ) -> None:
        """Let a kernel that survived go on; its log still has it later."""
        if not self.postponed:
            text = f"{_without_core(cause, problem)}; the kernel goes on; trying again"
            fields = self._fields(cause, facts)
            self._reporter.report_problem(text, EventName.NO_CORE, **fields)
        self.postponed = True

    def _wait_for_room(
        self, control: VmControl, marks: VmMarks, delay: float
    ) -> WatchEnd | None:
        """Wait some seconds, and then until there is room; at most a minute."""
        deadline = time.monotonic() + _LAST_RETRY
        while True:
            self._reporter.show_status(
                "dead; waiting until its core image can be written"
            )
            end = wait_paused(control, self._reporter, delay)
            if end is not None or time.monotonic() > deadline:
                return end
            if self.dump.find_problem(marks) is None:
                return None
            delay = _LOOK_FOR_ROOM

    def _act(self, control: VmControl, cause: DumpCause) -> WatchEnd | None:
        """Do with the VM what the settings say, but not too often."""
        settings, history = self._settings, self.history
        end = None
        if settings.action is VmAction.RESET and not cause.vm.boots:
            end = self._wait_before_reset(control)
        if end is None:
            end = act_on_vm(settings.action, control, cause.vm, self._reporter)
        history.note_action(started=end is not None and end.boots_again)
        self._save_history()
        return end

    def _wait_before_reset(self, control: VmControl) -> WatchEnd | None:
        wait, deaths = self.history.wait, self.history.deaths_in_a_row
        if wait == 0.0 or control.gone or not control.can("reset"):
            return None
        self._reporter.report(
            f"{deaths} deaths, each soon after a start: reset in {wait:.0f} s"
        )
        return wait_paused(control, self._reporter, wait)

    def _fields(self, cause: DumpCause, facts: DeathFacts | None) -> EventFields:
        fields = EventFields(kind=cause.kind.value, cause=cause.text)
        if facts is not None:
            fields |= facts.shown(self._seal).signature_fields
        return fields

    def _save_history(self) -> None:
        problem = self.history.save()
        if problem is not None:
            self._reporter.show_status(problem)


def _without_core(cause: DumpCause, problem: str) -> str:
    return f"{cause.text}; no core image: {problem}"


class _Waiting:
    """How long a VM has been waiting for its core image, and what was said of it."""

    def __init__(self, reporter: Reporter, fields: EventFields) -> None:
        self._reporter = reporter
        self._fields = fields
        self._started = time.monotonic()
        self._reported: float | None = None
        self._delay = _FIRST_RETRY / 2

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def next_delay(self) -> float:
        """Return the seconds until the next attempt."""
        self._delay = min(2 * self._delay, _LAST_RETRY)
        return self._delay

    def report(self, text: str, *, paused: bool) -> None:
        """Report the problem at once, and then now and then."""
        if self._reported is None:
            stays = "; the VM stays paused" if paused else ""
            text = f"{text}{stays}; trying again"
            self._reporter.report_problem(text, EventName.NO_CORE, **self._fields)
        elif self.seconds - self._reported > _REMIND:
            text = f"{text}; for {format_duration(self.seconds)} now"
            self._reporter.report(text, EventName.PROBLEM, **self._fields)
        else:
            return
        self._reported = self.seconds
