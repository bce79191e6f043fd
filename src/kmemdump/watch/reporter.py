# SPDX-License-Identifier: GPL-2.0-or-later
"""What a watch tells those who started it, and how they end it."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["StoppedError", "Voice", "first_line"]


class StoppedError(Exception):
    """Somebody wants us to end."""


class Voice:
    """
    Speaks for one VM.

    :param say: Told in one line what a person should know.
    :param show: Told what is going on.
    :param stopping: Asked often whether to end.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        show: Callable[[str], None],
        stopping: Callable[[], bool],
    ) -> None:
        self.say = say
        self.show = show
        self._stopping = stopping
        self.problems: list[str] = []
        """What was complained of."""

    def complain(self, problem: str) -> None:
        """Say what is missing, and remember it."""
        self.problems.append(problem)
        self.say(problem)

    def check_stopping(self) -> None:
        """
        Look whether to go on.

        :raises StoppedError: If not.
        """
        if self._stopping():
            raise StoppedError

    def sleep(self, seconds: float) -> None:
        """
        Wait.

        :raises StoppedError: If somebody wants us to end.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.check_stopping()
            time.sleep(min(0.1, left))


def first_line(error: Exception) -> str:
    """Return what an error says, without its advice."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
