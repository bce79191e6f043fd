# SPDX-License-Identifier: GPL-2.0-or-later
"""A way to a VM's monitor: a QMP socket, or libvirt's own connection to it."""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TypeVar

from kmemdump.bounds.steps import hold
from kmemdump.errors import TargetError
from kmemdump.targets import Closing

__all__ = ["LostError", "QmpChannel", "QmpCommandError", "QmpTimeoutError"]

_MAX_EVENTS = 4096
_MAX_EVENT = 16 << 10
"""Characters of an event that is kept: QEMU's have some hundreds."""
_MIGRATES = (
    *("setup", "wait-unplug", "active", "pre-switchover", "device", "cancelling"),
    *("postcopy-active", "postcopy-paused", "postcopy-recover", "colo"),
)
"""MigrationStatus in qapi/migration.json of QEMU, without beginning and ends."""
_RETRY = 0.5
"""Seconds between two attempts to reach a monitor."""
_T = TypeVar("_T")

_logger = logging.getLogger(__name__)


class QmpCommandError(TargetError):
    """QEMU answered, and refused the command."""


class QmpTimeoutError(TargetError):
    """QEMU did not answer in time."""


class LostError(QmpTimeoutError):
    """What leads to the monitor is not there, or has gone; it may come back."""


class QmpChannel(Closing, ABC):
    """
    A connection to a VM's monitor, in which every wait has a deadline.

    All methods may be called from any thread.

    :param name: The VM, for messages.
    """

    peer: int = 0
    """PID of QEMU, or of what made its socket; 0 if that is not known."""
    user: int | None = None
    """User id of that process; None if it is not known."""
    spec: str = ""
    """How the VM is opened, if not by the target's name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._events: queue.Queue[Mapping[str, object]] = queue.Queue(_MAX_EVENTS)

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether QEMU is still there, as far as is known."""

    @abstractmethod
    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        timeout: float | None = None,
    ) -> object:
        """
        Execute a QMP command and return its answer.

        :param timeout: Seconds.
        :raises QmpCommandError: If QEMU refuses the command.
        :raises TargetError: If QEMU does not answer in time, or went away.
        """

    @abstractmethod
    def send_fd(self, fd: int, name: str) -> None:
        """Give QEMU a copy of a file descriptor; *name* names it in commands."""

    def command_line(self, line: str, timeout: float | None = None) -> str:
        """Execute a command of the human monitor (HMP) and return its output."""
        answer = self.execute("human-monitor-command", {"command-line": line}, timeout)
        if not isinstance(answer, str):
            raise TargetError(f"{self.name}: {line}: answer is no text")
        return answer.replace("\r\n", "\n")

    def when_reached(self, ask: Callable[[], _T]) -> _T:
        """
        Return what *ask* returns; a monitor that cannot be reached is waited for.

        :raises TargetError: What *ask* raises if the monitor refuses, does not answer
            or has ended.
        """
        said = False
        while True:
            try:
                return ask()
            except LostError as error:
                if not self.connected:
                    raise
                if not said:
                    _logger.warning("%s", error)
                said = True
            time.sleep(_RETRY)

    def pause(self, name: str) -> None:
        """
        Pause the VM, which stays paused if this process ends.

        :param name: Of the target, for the process that then lets it run.
        """
        hold(True, name)
        try:
            self.execute("stop")
        except BaseException:
            hold(False)
            raise

    def resume(self) -> None:
        """Let the VM run that :meth:`pause` has paused, as soon as it can be asked."""
        self.when_reached(lambda: self.execute("cont"))
        hold(False)

    def status(self) -> str:
        """Return the VM's run state: ``running``, ``paused``, ``guest-panicked``, …"""
        answer = self.execute("query-status")
        status = answer.get("status") if isinstance(answer, dict) else None
        if not isinstance(status, str):
            raise TargetError(f"{self.name}: query-status: no status in the answer")
        return status

    def migrates(self) -> bool:
        """Return whether the VM is on its way to another host, or into a file."""
        try:
            answer = self.execute("query-migrate")
        except QmpCommandError:
            return False  # It cannot.
        return isinstance(answer, dict) and answer.get("status") in _MIGRATES

    def event(self, timeout: float = 0.0) -> Mapping[str, object] | None:
        """
        Return the oldest event that was not returned yet.

        :param timeout: Seconds to wait for one.
        :return: None if there is none.
        """
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return None

    def _keep_event(self, event: Mapping[str, object]) -> None:
        """Keep an event for the caller; if nobody takes events, the oldest is lost."""
        if len(repr(event)) > _MAX_EVENT:
            return
        if self._events.full():
            with contextlib.suppress(queue.Empty):
                self._events.get_nowait()
        with contextlib.suppress(queue.Full):
            self._events.put_nowait(event)
