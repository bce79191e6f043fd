# SPDX-License-Identifier: GPL-2.0-or-later
"""Being there while a kernel lives, so that its end is seen."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kmemdump.errors import KmemdumpError, TargetError
from kmemdump.text import format_size
from kmemdump.watch.end_causes import Death, End, Fate, shut_down, vanished, was_reset
from kmemdump.watch.hang_detector import Vcpu
from kmemdump.watch.qmp_events import Notice, NoticeKind
from kmemdump.watch.reporter import Voice, first_line
from kmemdump.watch.settings import Settings
from kmemdump.watch.vm_control import Host
from kmemdump.watch.vm_state import SAMPLE_INTERVAL, Life

__all__ = ["Vigil"]

_POLL = 0.25
"""Seconds between two looks at the panic state."""
_SETTLE = 0.5
"""Seconds for which the log of a dying kernel must stand still."""
_SETTLE_LIMIT = 4.0
_NMI_PATIENCE = 5.0
"""Seconds that a guest has to panic of an NMI."""


class Vigil:
    """Watches one kernel, and refreshes its marks."""

    def __init__(
        self, host: Host, life: Life, settings: Settings, voice: Voice
    ) -> None:
        self._host = host
        self._life = life
        self._settings = settings
        self._voice = voice

    def keep(self) -> Death | End:
        """
        Watch until the life ends, or something happens that is worth a core image.

        :raises StoppedError: If somebody wants us to end.
        """
        host = self._host
        next_poll = time.monotonic()
        while True:
            self._voice.check_stopping()
            notice = host.notice(max(next_poll - time.monotonic(), 0.0))
            if notice is not None:
                end = self._heed(notice)
            elif host.gone:
                end = vanished(self._life)
            else:
                end = self._poll()
                next_poll = time.monotonic() + _POLL
            if end is not None:
                return end

    def _heed(self, notice: Notice) -> Death | End | None:
        """Do what an event demands."""
        host, life = self._host, self._life
        now = time.monotonic()
        match notice.kind:
            case NoticeKind.PANIC:
                return Death(f"panic ({notice.text})", now)
            case NoticeKind.WATCHDOG:
                return Death(notice.text, now)
            case NoticeKind.INJECTED:
                life.nmi, life.nmi_at = notice.text, now
                return None
            case NoticeKind.RESET:
                host.stop()  # While most of the memory is still there.
                end = was_reset(life, notice, now)
            case NoticeKind.SHUTDOWN:
                end = shut_down(host, life, notice, now)
        if isinstance(end, End) and end.again:
            if notice.kind is NoticeKind.RESET:
                host.cont()
            elif not host.reset():
                return End("rebooted in an orderly way, but cannot be reset")
        return end

    def _poll(self) -> Death | End | None:
        """Look at the kernel's memory."""
        life = self._life
        now = time.monotonic()
        signs = life.signs()
        if signs.panicked:
            fate = Fate.BOOTS if self._settle() else Fate.STANDS
            after = f" after {life.nmi}" if life.nmi else ""
            return Death(f"panic{after}", time.monotonic(), fate)
        if life.lost:
            if signs.leaving:
                return End("gave way to another kernel: no core image", again=True)
            return Death("the kernel vanished from memory", now, Fate.BOOTS)
        if life.nmi and now > life.nmi_at + _NMI_PATIENCE:
            cause, life.nmi = life.nmi, ""
            return Death(cause, now, Fate.LIVES)
        if signs.oopsed and not life.oopsed:
            self._settle()  # It may become a panic.
            life.oopsed = True
            if not life.signs().panicked:
                return Death("oops", time.monotonic(), Fate.LIVES, oops=True)
            return None
        if self._settings.hang_after and now >= life.next_sample:
            life.next_sample = now + SAMPLE_INTERVAL
            hang = life.find_hang(self._ask_vcpus)
            if hang is not None:
                return Death(f"frozen: {hang}", time.monotonic(), Fate.LIVES)
        if now >= life.next_refresh or (signs.booted and not life.booted):
            life.booted = life.booted or signs.booted
            life.next_refresh = now + self._settings.interval
            self._refresh()
        return None

    def _settle(self) -> bool:
        """
        Wait until a dying kernel has said what it has to say.

        It changes its state first and logs why afterwards.

        :return: Whether the VM was reset meanwhile.
        """
        host, life = self._host, self._life
        begin = since = time.monotonic()
        head = life.log_head()
        while time.monotonic() - begin < _SETTLE_LIMIT and not host.gone:
            notice = host.notice(0.05)
            if notice is not None and notice.kind is NoticeKind.RESET:
                host.stop()
                return True
            now = life.log_head()
            if now != head:
                head, since = now, time.monotonic()
            elif notice is not None or time.monotonic() - since > _SETTLE:
                break
        return False

    def _refresh(self) -> None:
        host, life = self._host, self._life
        if host.status() != "running":
            return  # Nothing changes, or nobody answers.
        keeper = life.keeper
        started = time.monotonic()
        try:
            keeper.refresh()
        except KmemdumpError as error:
            if isinstance(error, TargetError):
                host.note(error)
            if not life.refresh_failed:
                self._voice.say(f"cannot refresh the marks: {first_line(error)}")
            life.refresh_failed = True
            return
        life.refresh_failed = False
        self._voice.show(
            f"{keeper.info.osrelease}: {len(keeper.registry)} regions, "
            f"{format_size(keeper.size)}, refreshed at "
            f"{keeper.capture.time:%H:%M:%S} UTC in {time.monotonic() - started:.2f} s"
        )

    def _ask_vcpus(self) -> Sequence[Vcpu | None] | None:
        host = self._host
        if not host.answers:
            return ()
        try:
            if host.target.status() != "running":
                return None
            return self._life.threads.look(host.target.timeout)
        except TargetError as error:
            host.note(error)
            return ()
