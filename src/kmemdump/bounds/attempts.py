# SPDX-License-Identifier: GPL-2.0-or-later
"""How a process with limits ended, and what the next one leaves out."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass

from kmemdump.bounds.steps import Limits, Refusal
from kmemdump.errors import BudgetExceededError

__all__ = ["OUT_OF_TIME", "Attempts", "End", "describe_status"]

OUT_OF_TIME = -1
"""Stands for the exit status of a child that was ended after :attr:`Limits.seconds`."""
_MAX_REFUSED = 3
"""Steps that may each end a child; the next one ends at the first such step."""
_LEAST = 1.0
"""CPU seconds that are not enough for a child: RLIMIT_CPU counts whole ones."""
_TOO_LONG = "no healthy kernel takes so long, or the host is busy"
_REASONS: dict[int, str] = {
    signal.SIGXCPU: _TOO_LONG,
    signal.SIGALRM: _TOO_LONG,
    signal.SIGKILL: "maybe for lack of memory",
}
"""Why the kernel sends signals to a process with limits."""


@dataclass(frozen=True, slots=True)
class End:
    """How a process with limits ended."""

    status: int
    """Its exit status, or minus the number of the signal that ended it."""
    step: str = ""
    """The step in which it was; empty if it was in none."""
    held: str = ""
    """What it had paused and not let go; empty if nothing."""

    @property
    def killed(self) -> bool:
        """Whether it was ended, and did not end by itself."""
        return self.status < 0

    def __str__(self) -> str:
        reason = _REASONS.get(-self.status)
        because = f": {reason}" if reason else ""
        where = f", in {self.step}" if self.killed and self.step else ""
        return f"{describe_status(self.status)}{because}{where}"


class Attempts:
    """
    Children that do the same work, one after the other.

    :param limits: Those of all of them together. The last one, which does again what
        the others could do, may take as much once more.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.begin_again()
        self.refused: dict[str, Refusal] = {}
        """Steps that the next child leaves out."""
        self.last: str | None = None
        """The step from which on it leaves out all."""

    def begin_again(self) -> None:
        """Allow the next child all that there is."""
        self.cpu = self._limits.cpu
        """CPU seconds that the next child may take."""
        self.deadline = time.monotonic() + self._limits.seconds
        """Until when it may take them: seconds of the monotonic clock."""

    def note(self, step: str, status: int, spent: float, advice: str) -> None:
        """
        Note how a child was ended.

        :param step: The step that it was in; empty if in none.
        :param status: Minus the number of a signal, or :data:`OUT_OF_TIME`.
        :param spent: CPU seconds that it took.
        :param advice: What to do about it, for the error.
        :raises BudgetExceededError: If another child would end in the same way.
        """
        self.cpu -= spent
        reason = self.describe(status, spent)
        if not step or step in self.refused or self.last is not None:
            where = f"{step}: " if step else ""
            raise BudgetExceededError(f"{where}{reason}\n{advice}")
        self.refused[step] = Refusal(reason)
        out = status == OUT_OF_TIME or self.cpu < _LEAST
        if out or len(self.refused) > _MAX_REFUSED:
            self.last = step
            self.begin_again()

    def describe(self, status: int, spent: float) -> str:
        """
        Return why a child was ended.

        :param status: Minus the number of a signal, or :data:`OUT_OF_TIME`.
        :param spent: CPU seconds that it took.
        """
        if status == OUT_OF_TIME:
            end = f"ended after {self._limits.seconds:.0f} s"
        else:
            end = str(End(status))
        return f"took {spent:.0f} s of CPU, {end}"


def describe_status(status: int | None) -> str:
    """Return how a process ended: its exit status, or the signal that ended it."""
    if status is None or status >= 0:
        return f"exit status {status}"
    try:
        return f"ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"ended by signal {-status}"
