# SPDX-License-Identifier: GPL-2.0-or-later
"""What we want of QEMU, which may refuse, fall silent or be gone."""

from __future__ import annotations

import time
from collections.abc import Callable

from kmemdump.errors import TargetError
from kmemdump.targets.qmp import QmpTarget
from kmemdump.targets.qmp_client import QmpTimeoutError
from kmemdump.watch.qmp_events import Notice, NoticeKind, interpret
from kmemdump.watch.reporter import Voice, first_line

__all__ = ["Host"]

_SILENCE = 30.0
"""Seconds for which a QEMU that did not answer is not asked again."""
_RESET_PATIENCE = 5.0


class Host:
    """
    The QEMU of a VM.

    :param target: The VM; stays the caller's.
    :param voice: Told that QEMU is silent, which may pass, and what it does not do.
    """

    def __init__(self, target: QmpTarget, voice: Voice) -> None:
        self.target = target
        self._voice = voice
        self._silent_until = 0.0
        self._told = False
        self._reboot_action = ""

    @property
    def gone(self) -> bool:
        """Whether QEMU has ended."""
        return not self.target.client.connected

    @property
    def answers(self) -> bool:
        """Whether QEMU answered when it was asked the last time, or so."""
        return not self.gone and time.monotonic() >= self._silent_until

    def notice(self, timeout: float) -> Notice | None:
        """Wait for an event that matters."""
        client = self.target.client
        deadline = time.monotonic() + timeout
        event = client.event()
        while True:
            if event is None:
                left = deadline - time.monotonic()
                event = client.event(left) if left > 0 else None
                if event is None:
                    return None
            notice = interpret(event)
            if notice is not None:
                return notice
            event = client.event()

    def forget_notices(self) -> None:
        """Forget the events up to now."""
        while self.target.client.event() is not None:
            pass

    def status(self) -> str | None:
        """Return QEMU's run state, or None if it does not tell."""
        if not self.answers:
            return None
        try:
            return self.target.status()
        except TargetError as error:
            self.note(error)
            return None

    def note(self, error: TargetError) -> None:
        """Remember that QEMU did not do what it was asked for."""
        if isinstance(error, QmpTimeoutError) and not self.gone:
            if not self._told:
                self._told = True
                self._voice.say(f"{first_line(error)}; its memory is still watched")
            self._silent_until = time.monotonic() + _SILENCE

    def stop(self) -> bool:
        """Pause the VM; return whether it was running."""
        self._silent_until = 0.0  # Now or never.
        return self.status() == "running" and self._ask("pause", self.target.stop)

    def cont(self) -> None:
        """Let the VM run."""
        self._ask("continue", self.target.cont)

    def quit(self) -> None:
        """End QEMU."""
        self._ask("end", self.target.quit)

    def reset(self) -> bool:
        """Reset the VM and let it run; return whether that worked."""
        if not self._ask("reset", self.target.system_reset):
            return False
        notice = self._wait_for_reset()
        if notice is NoticeKind.SHUTDOWN and not self.gone:
            # With -action reboot=shutdown, that is what a reset is. SeaBIOS resets
            # once more when it finds itself in memory already.
            self._ask("reset", lambda: self._set_reboot_action("reset"))
            self._reboot_action = "shutdown"
            self._ask("reset", self.target.system_reset)
            notice = self._wait_for_reset()
        if notice is not NoticeKind.RESET:
            if not self.gone:
                self._voice.complain("cannot reset the VM: QEMU did not")
            return False
        # QEMU tells of it before it takes commands for the VM again.
        return self.status() == "running" or self._ask("continue", self.target.cont)

    def booted(self) -> None:
        """Have QEMU do again what it did at a reboot before :meth:`reset`."""
        action, self._reboot_action = self._reboot_action, ""
        if action:
            self._ask("prepare", lambda: self._set_reboot_action(action))

    def _wait_for_reset(self) -> NoticeKind | None:
        deadline = time.monotonic() + _RESET_PATIENCE
        while (left := deadline - time.monotonic()) > 0 and not self.gone:
            notice = self.notice(left)
            if notice and notice.kind in (NoticeKind.RESET, NoticeKind.SHUTDOWN):
                return notice.kind
        return None

    def _set_reboot_action(self, action: str) -> None:
        client = self.target.client
        client.execute("set-action", {"reboot": action}, self.target.timeout)

    def _ask(self, what: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except TargetError as error:
            if not self.gone:
                self._voice.complain(f"cannot {what} the VM: {first_line(error)}")
            return False
        return True
