# SPDX-License-Identifier: GPL-2.0-or-later
"""Control of a VM over QMP: status, pause, continue, reset, quit, events."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from kmemdump.bounds.steps import hold
from kmemdump.errors import TargetError
from kmemdump.targets.qmp_channel import QmpTimeoutError
from kmemdump.targets.vm import VmTarget, is_paused, let_run
from kmemdump.watch.qmp_events import VmEvent, VmEventKind, interpret_event
from kmemdump.watch.reporter import Reporter, first_line

__all__ = ["VmControl"]

_SILENCE = 30.0
"""Seconds for which a QEMU that did not answer is not asked again."""
_RESET_PATIENCE = 5.0


class VmControl:
    """
    Controls a VM. QEMU may refuse, fall silent or be gone.

    :param target: The VM; the caller closes it.
    :param reporter: Gets a line when QEMU does not answer, or refuses.
    """

    def __init__(self, target: VmTarget, reporter: Reporter) -> None:
        self.target = target
        self._reporter = reporter
        self._silent_until = 0.0
        self._silence_reported = False
        self._reboot_action = ""
        self.has_stopped = False
        """Whether this watch has paused the VM, and not let it run since."""

    @property
    def gone(self) -> bool:
        """Whether QEMU has ended."""
        return not self.target.client.connected

    @property
    def answers(self) -> bool:
        """Whether QEMU answered last time, or its silence was long ago."""
        return not self.gone and time.monotonic() >= self._silent_until

    def next_event(self, timeout: float) -> VmEvent | None:
        """
        Wait for an event that may mean a kernel's death.

        :param timeout: Seconds.
        """
        client = self.target.client
        deadline = time.monotonic() + timeout
        self._follow_memory()
        while True:
            event = client.event(max(deadline - time.monotonic(), 0.0))
            if event is None:
                return None
            # It speaks again: after libvirt's daemon was restarted, for example.
            self._silent_until, self._silence_reported = 0.0, False
            self.target.note_event(event)
            meaning = interpret_event(event)
            if meaning is not None:
                return meaning

    def drop_events(self) -> None:
        """Ignore the events up to now."""
        while (event := self.target.client.event()) is not None:
            self.target.note_event(event)
        self._follow_memory()

    def _follow_memory(self) -> None:
        """Read the map of the VM's memory again, if it may have changed."""
        if self.answers:
            for news in self.target.follow_memory():
                self._reporter.report(news)

    def status(self) -> str | None:
        """Return QEMU's run state, or None if QEMU does not answer."""
        if not self.answers:
            return None
        try:
            return self.target.status()
        except TargetError as error:
            self.note_error(error)
            return None

    def note_error(self, error: TargetError) -> None:
        """Remember that QEMU did not answer, if that is the error."""
        if isinstance(error, QmpTimeoutError) and not self.gone:
            if not self._silence_reported:
                self._silence_reported = True
                self._reporter.report(
                    f"{first_line(error)}; its memory is still watched"
                )
            self._silent_until = time.monotonic() + _SILENCE

    def can(self, ability: str) -> bool:
        """Return whether the VM's monitor can do something, see :class:`VmTarget`."""
        return ability in self.target.abilities

    def stop(self) -> bool:
        """Pause the VM; return whether it was running."""
        self._silent_until = 0.0  # This one is worth a wait.
        running = self.status() == "running"
        if running:
            self.has_stopped = True
            self._ask("pause", "stop")
        return running  # Even without an answer, it may stop later.

    def cont(self) -> bool:
        """Let the VM run, as soon as its monitor can be reached; return whether so."""
        self.has_stopped = False
        try:
            self.target.cont()
        except TargetError as error:
            self._report_refusal("continue", error)
            return False
        return True

    @property
    def is_left_paused(self) -> bool:
        """Whether somebody else has paused the VM: only he is to let it run."""
        return not self.has_stopped and is_paused(self.status() or "")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the VM, if it runs, for a ``with`` statement, however that ends."""
        self._silent_until = 0.0
        # Somebody else has paused it, or libvirt would not let it run again.
        if self.status() != "running" or self.migrates():
            yield
            return
        hold(True, self.target.name)
        try:
            self.stop()
            yield
        finally:
            self.let_run()
            hold(False)

    def migrates(self) -> bool:
        """Return whether the VM is on its way to another host, or into a file."""
        try:
            return self.target.client.migrates()
        except TargetError:
            return False

    def let_run(self) -> None:
        """Let the VM run that was paused, unless somebody does something else."""
        try:
            let_run(self.target)
        except TargetError as error:
            self._report_refusal("continue", error)
        self.has_stopped = False

    def quit(self) -> bool:
        """End QEMU; return whether it was told to."""
        return self._ask("end", "quit", insist=True)

    def reset(self) -> bool:
        """Reset the VM and let it run; return whether that worked."""
        if not self._ask("reset", "system_reset", insist=True):
            return False
        kind = self._wait_for_reset()
        if kind is VmEventKind.SHUTDOWN and not self.gone:
            # With -action reboot=shutdown, a reset is a shutdown. SeaBIOS resets
            # once more when it finds itself in memory already.
            self._ask("reset", "set-action", {"reboot": "reset"})
            self._reboot_action = "shutdown"
            self._ask("reset", "system_reset", insist=True)
            kind = self._wait_for_reset()
        if kind is not VmEventKind.RESET:
            if not self.gone:
                self._reporter.report_problem("cannot reset the VM: QEMU did not")
            return False
        # QEMU sends the event before it takes commands for the VM again.
        return self.status() == "running" or self.cont()

    def restore_reboot_action(self) -> None:
        """Restore QEMU's action on a reboot, which :meth:`reset` changed."""
        action, self._reboot_action = self._reboot_action, ""
        if action:
            self._ask("prepare", "set-action", {"reboot": action})

    def _wait_for_reset(self) -> VmEventKind | None:
        deadline = time.monotonic() + _RESET_PATIENCE
        while (left := deadline - time.monotonic()) > 0 and not self.gone:
            event = self.next_event(left)
            if event and event.kind in (VmEventKind.RESET, VmEventKind.SHUTDOWN):
                return event.kind
        return None

    def _ask(
        self,
        what: str,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        insist: bool = False,
    ) -> bool:
        """
        Return whether QEMU did it.

        :param insist: Whether to wait for a monitor that cannot be reached.
        """
        client = self.target.client
        ask = partial(client.execute, command, arguments)
        try:
            client.when_reached(ask) if insist else ask()
        except TargetError as error:
            self._report_refusal(what, error)
            return False
        return True

    def _report_refusal(self, what: str, error: TargetError) -> None:
        if not self.gone:
            self._reporter.report_problem(f"cannot {what} the VM: {first_line(error)}")
