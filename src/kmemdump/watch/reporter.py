# SPDX-License-Identifier: GPL-2.0-or-later
"""Events of a VM to the supervisor, and the supervisor's commands to its worker."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Unpack

from kmemdump.watch.control.commands import Command
from kmemdump.watch.events import Event, EventFields, EventName

__all__ = ["Reporter", "StoppedError", "first_line"]


_MAX_PROBLEMS = 20


class StoppedError(Exception):
    """The watch was told to stop."""


class Reporter:
    """
    Reports what happens to one VM.

    :param vm: The VM's name.
    :param send: Called with each event.
    :param stopping: Called often; returns whether the watch should stop.
    :param next_command: Called often; returns what to do now, if anything.
    """

    def __init__(
        self,
        vm: str,
        send: Callable[[Event], None],
        stopping: Callable[[], bool],
        next_command: Callable[[], Command | None] = lambda: None,
    ) -> None:
        self._vm = vm
        self._send = send
        self._stopping = stopping
        self._next_command = next_command
        self._obey: Callable[[Command], None] = self._refuse
        self.problems: deque[str] = deque(maxlen=_MAX_PROBLEMS)
        """The last problems that were reported, oldest first."""

    def report(
        self,
        text: str,
        event: EventName = EventName.NOTE,
        **more: Unpack[EventFields],
    ) -> None:
        """Report what happened: one line for a person, and fields for programs."""
        self._send(Event(event=event, vm=self._vm, text=text, **more))

    def report_problem(
        self,
        problem: str,
        event: EventName = EventName.PROBLEM,
        **more: Unpack[EventFields],
    ) -> None:
        """Report what is missing or failed, and remember it."""
        self.problems.append(problem)
        self.report(problem, event, **more)

    def report_samples(self, count: int) -> None:
        """Report that *count* samples of the hang detector raised no alarm."""
        self.report(f"{count} samples, no alarm", EventName.ALIVE, samples=count)

    def show_status(self, text: str) -> None:
        """Report what the watch is doing now."""
        self.report(text, EventName.STATUS)

    def check_stopping(self) -> None:
        """
        Check whether to go on, and do what the supervisor asks for meanwhile.

        :raises StoppedError: If the watch should stop.
        """
        if self._stopping():
            raise StoppedError
        if (command := self._next_command()) is not None:
            self._obey(command)

    @contextmanager
    def obeying(self, obey: Callable[[Command], None]) -> Iterator[None]:
        """Let *obey* do commands in the body of a ``with`` statement."""
        self._obey = obey
        try:
            yield
        finally:
            self._obey = self._refuse

    def _refuse(self, command: Command) -> None:
        text = "no kernel is marked now"
        self.report(text, EventName.NO_CORE, request=command.request)

    def sleep(self, seconds: float) -> None:
        """
        Wait.

        :raises StoppedError: If the watch should stop.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.check_stopping()
            time.sleep(min(0.1, left))


def first_line(error: Exception) -> str:
    """Return the message of an error, without its advice."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
