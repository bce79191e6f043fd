# SPDX-License-Identifier: GPL-2.0-or-later
"""
QMP through libvirt's own connection to a VM's monitor.

What changes the VM's state goes through libvirt's own calls, so that libvirt, and what
is built on it, knows. A daemon that is restarted is found again: QEMU does not end
with it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from kmemdump.bounds.steps import hold
from kmemdump.errors import KmemdumpError, TargetError
from kmemdump.targets.libvirt.connection import LibvirtConnection, load_libvirt
from kmemdump.targets.libvirt.crash_action import keep_when_dead, restore_crash_action
from kmemdump.targets.libvirt.process import ProcessEnd, daemon_of, find_process
from kmemdump.targets.peer import user_of
from kmemdump.targets.qmp_channel import (
    LostError,
    QmpChannel,
    QmpCommandError,
    QmpTimeoutError,
)
from kmemdump.targets.vm import is_paused
from kmemdump.text import printable

__all__ = ["DEFAULT_TIMEOUT", "LibvirtChannel"]

DEFAULT_TIMEOUT = 10.0
"""Seconds that libvirt has for each answer."""
_RETRY = 0.5
"""Seconds between attempts to reach a daemon that has gone."""
_LAST_EVENTS = 1.0
"""Seconds in which libvirt may still report why QEMU ended."""
_MAX_TEXT = 200
_OWN_CALLS: Mapping[str, Callable[[Any], object]] = {
    "stop": lambda domain: domain.suspend(),
    "cont": lambda domain: domain.resume(),
    "system_reset": lambda domain: domain.reset(),
    "quit": lambda domain: domain.destroy(),
}
"""QMP commands for which libvirt has calls of its own."""
_MISSED: Mapping[str, Mapping[str, object]] = {
    "guest-panicked": {"event": "GUEST_PANICKED", "data": {"action": "pause"}},
    "watchdog": {"event": "WATCHDOG", "data": {"action": "pause"}},
    "shutdown": {"event": "SHUTDOWN", "data": {"guest": True}},
}
"""Events that must have occurred, by the run state that follows them."""
_T = TypeVar("_T")

_logger = logging.getLogger(__name__)


class LibvirtChannel(QmpChannel):
    """
    The monitor of a running domain.

    :param uri: libvirt's URI; empty for its default.
    :param domain: Name or UUID.
    :param timeout: Seconds that libvirt has for each answer.
    :param keep_dead: Whether libvirt is to keep QEMU after a panic, as long as this
        connection is open, whatever the domain's ``<on_crash>``.
    :raises UsageError: If VMs at *uri* cannot be watched from here.
    :raises UnsupportedError: If libvirt's Python module is missing.
    :raises TargetError: If libvirt cannot be reached, or has no such running domain.
    """

    def __init__(
        self,
        uri: str,
        domain: str,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        keep_dead: bool = False,
    ) -> None:
        super().__init__(f"libvirt:{domain}")
        self.spec = f"libvirt:{uri}#{domain}" if uri else ""
        self._uri = uri
        self._wanted = domain
        self._timeout = timeout
        self._process = ProcessEnd(0)
        self._ended_at: float | None = None
        self._stopped = threading.Event()
        """Whether libvirt says that the VM has ended."""
        self._closing = threading.Event()
        self._id = -1
        self._crash_action = ""
        """The domain's own, if another one is set meanwhile."""
        self._connection, self._domain = self._open()
        try:
            found = self._connection.call(self._domain.name, "name of the domain")
            self.peer = find_process(str(found), daemon_of(uri))
            self.user = user_of(self.peer) if self.peer else None
            self._process = ProcessEnd(self.peer)
            self._status = self.status()
            if keep_dead:
                self._crash_action = self._keep_when_dead()
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._stay, name=self.name, daemon=True).start()

    def _open(self) -> tuple[LibvirtConnection, Any]:
        connection = LibvirtConnection(self._uri, self._timeout)
        try:
            return connection, connection.call(
                lambda: self._find(connection), "looking it up", name=self.name
            )
        except BaseException:
            connection.close()
            raise

    def _find(self, connection: LibvirtConnection) -> Any:
        """Find the domain, and ask for its events."""
        import libvirt_qemu

        libvirt, raw = connection.libvirt, connection.raw
        try:
            domain = raw.lookupByName(self._wanted)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            try:
                domain = raw.lookupByUUIDString(self._wanted)
            except libvirt.libvirtError:
                raise error from None
        number = domain.ID()
        if number < 0 or self._id not in (-1, number):
            self._stopped.set()
            raise TargetError(f"{self.name}: the domain is not running")
        self._id = number
        self._wanted = domain.UUIDString()
        raw.domainEventRegisterAny(
            domain, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._take_change, None
        )
        libvirt_qemu.qemuMonitorEventRegister(
            raw, domain, None, self._take_event, None, 0
        )
        return domain

    def _keep_when_dead(self) -> str:
        try:
            return self._call(keep_when_dead, "on_crash", None)
        except LostError:
            raise
        except TargetError:
            return ""  # This libvirt cannot change it in a running domain.

    def _take_change(self, *given: Any) -> None:
        _connection, _domain, change, detail, *_ = given
        libvirt = load_libvirt()
        if change != libvirt.VIR_DOMAIN_EVENT_STOPPED:
            return
        # If libvirt itself ends QEMU, it may drop QEMU's event about that.
        ends = {
            libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "libvirt-destroy",
            libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: "libvirt-migration",
            libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: "libvirt-save",
            libvirt.VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT: "libvirt-snapshot",
        }
        if detail in ends:
            data = {"guest": False, "reason": ends[detail]}
            self._keep_event({"event": "SHUTDOWN", "data": data})
        self._stopped.set()

    def _take_event(self, *given: Any) -> None:
        _connection, _domain, name, seconds, micros, details, *_ = given
        data: object = None
        with suppress(ValueError, TypeError):
            data = json.loads(details)
        stamp = {"seconds": seconds, "microseconds": micros}
        self._keep_event({"event": name, "data": data, "timestamp": stamp})

    def _stay(self) -> None:
        """Connect again whenever the daemon has gone."""
        while not self._closing.is_set():
            if not self._connection.wait_for_end(1.0):
                continue
            while self.connected and not self._closing.wait(_RETRY):
                with suppress(KmemdumpError):
                    self._come_back()
                    break
            else:
                return

    def _come_back(self) -> None:
        before, last = self._connection, self._status
        self._connection, self._domain = self._open()
        before.close()
        # Tells the caller that libvirt answers again.
        self._keep_event({"event": "LIBVIRT_CONNECTED"})
        now = self.status()
        # It may have been asked last while it was paused for a moment.
        if now != last and now in _MISSED:
            self._keep_event(_MISSED[now])

    @property
    def connected(self) -> bool:
        if self._closing.is_set() or self._stopped.is_set():
            return False
        if not self._process.ended:
            return True
        # libvirt's events come later than the process's end.
        now = time.monotonic()
        if self._ended_at is None:
            self._ended_at = now
        return self._connection.alive and now < self._ended_at + _LAST_EVENTS

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        timeout: float | None = None,
    ) -> object:
        if command in _OWN_CALLS:
            self._call(_OWN_CALLS[command], command, timeout)
            return {}
        if command == "dump-guest-memory":
            # libvirt 9.0 dies of the event that ends a dump which it did not start.
            raise QmpCommandError(f"{self.name}: {command}: not in a VM of libvirt")
        answer = self._ask(command, arguments, timeout)
        if command == "query-status" and isinstance(answer, dict):
            self._status = str(answer.get("status"))
        return answer

    def resume(self) -> None:
        """
        Let the VM run that :meth:`pause` has paused, as soon as it can be asked.

        libvirt does nothing in the end that had to wait too long for a QEMU that hangs,
        or for another job with the domain: it is asked again then.
        """
        late = False
        while True:
            try:
                if not late or is_paused(self.when_reached(self.status)):
                    super().resume()
                else:  # It was done after all, or somebody does something else.
                    hold(False)
                return
            except QmpTimeoutError:
                if not self.connected:
                    raise
                if not late:
                    _logger.warning("%s: libvirt does not let it run yet", self.name)
                late = True
            time.sleep(_RETRY)

    def _ask(
        self,
        command: str,
        arguments: Mapping[str, object] | None,
        timeout: float | None,
    ) -> object:
        import libvirt_qemu

        sent: dict[str, object] = {"execute": command}
        if arguments:
            sent["arguments"] = dict(arguments)
        text = json.dumps(sent)
        reply = self._call(
            lambda domain: libvirt_qemu.qemuMonitorCommand(domain, text, 0),
            command,
            timeout,
        )
        try:
            answer = json.loads(reply)
        except (ValueError, TypeError, RecursionError) as error:
            raise TargetError(f"{self.name}: {command}: answer is no JSON") from error
        if not isinstance(answer, dict) or not answer.keys() & {"return", "error"}:
            raise TargetError(f"{self.name}: {command}: answer has no result")
        if "error" in answer:
            problem = answer["error"]
            said = problem.get("desc") if isinstance(problem, dict) else problem
            said = printable(str(said))[:_MAX_TEXT]
            raise QmpCommandError(f"{self.name}: {command}: QEMU says: {said}")
        result: object = answer["return"]
        return result

    def _call(
        self, function: Callable[[Any], _T], what: str, timeout: float | None
    ) -> _T:
        connection, domain = self._connection, self._domain
        if self._closing.is_set():
            raise TargetError(f"{self.name}: {what}: the connection is closed")
        if self._stopped.is_set():
            raise TargetError(f"{self.name}: {what}: the VM has ended")
        if not connection.alive:
            raise LostError(f"{self.name}: {what}: libvirt has gone; trying again")
        try:
            return connection.call(lambda: function(domain), what, timeout, self.name)
        except UnicodeError as error:
            raise TargetError(f"{self.name}: {what}: answer is no text") from error

    def send_fd(self, fd: int, name: str) -> None:
        raise QmpCommandError(f"{self.name}: libvirt gives QEMU no file descriptor")

    def close(self) -> None:
        action, self._crash_action = self._crash_action, ""
        if action and not self._stopped.is_set():
            with suppress(KmemdumpError):
                self._call(
                    lambda domain: restore_crash_action(domain, action), "on_crash", 1.0
                )
        self._closing.set()
        self._connection.close()
        self._process.close()
