# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages about a VM to the process that started the watch, and its wish to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Message", "Reporter", "StoppedError", "first_line"]


@dataclass(frozen=True, slots=True)
class Message:
    """A message about a VM."""

    vm: str
    """The VM's name."""
    text: str
    passing: bool = False
    """Whether it only says what the watch is doing now."""
    samples: int | None = None
    """
    In a sign of life: samples of the hang detector since the kernel was marked, or
    since the last alarm.
    """


class StoppedError(Exception):
    """The watch was told to stop."""


class Reporter:
    """
    Reports what happens to one VM.

    :param vm: The VM's name.
    :param send: Called with each message.
    :param stopping: Called often; returns whether the watch should stop.
    """

    def __init__(
        self,
        vm: str,
        send: Callable[[Message], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._vm = vm
        self._send = send
        self._stopping = stopping
        self.problems: list[str] = []
        """The reported problems, oldest first."""

    def report(self, text: str) -> None:
        """Report one line for a person to read."""
        self._send(Message(self._vm, text))

    def report_problem(self, problem: str) -> None:
        """Report what is missing or failed, and remember it."""
        self.problems.append(problem)
        self.report(problem)

    def report_samples(self, count: int) -> None:
        """Report that *count* samples of the hang detector raised no alarm."""
        text = f"{count} samples, no alarm"
        self._send(Message(self._vm, text, passing=True, samples=count))

    def show_status(self, text: str) -> None:
        """Report what the watch is doing now."""
        self._send(Message(self._vm, text, passing=True))

    def check_stopping(self) -> None:
        """
        Check whether to go on.

        :raises StoppedError: If the watch should stop.
        """
        if self._stopping():
            raise StoppedError

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
