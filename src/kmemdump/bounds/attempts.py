# SPDX-License-Identifier: GPL-2.0-or-later
"""What a child left behind that was ended, and what the next one leaves out."""

from __future__ import annotations

import signal

from kmemdump.bounds.steps import Limits, Refusal
from kmemdump.errors import BudgetExceededError

__all__ = ["OUT_OF_TIME", "Attempts", "describe_end", "describe_status"]

OUT_OF_TIME = -1
"""Stands for the exit status of a child that was ended after :attr:`Limits.seconds`."""
_MAX_REFUSED = 3
"""Steps that may each end a child; the next one ends at the first such step."""


class Attempts:
    """
    Children that do the same work, one after the other.

    :param limits: Those of all of them together.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._spent = 0.0
        self.refused: dict[str, Refusal] = {}
        """Steps that the next child leaves out."""
        self.last: str | None = None
        """The step from which on it leaves out all."""

    def note(self, step: str, status: int, spent: float, advice: str) -> None:
        """
        Note how a child was ended.

        :param step: The step that it was in; empty if in none.
        :param status: Minus the number of a signal, or :data:`OUT_OF_TIME`.
        :param spent: CPU seconds that it took.
        :param advice: What to do about it, for the error.
        :raises BudgetExceededError: If another child would end in the same way.
        """
        self._spent += spent
        reason = describe_end(status, self._limits, spent)
        if not step or step in self.refused or self.last is not None:
            where = f"{step}: " if step else ""
            raise BudgetExceededError(f"{where}{reason}\n{advice}")
        self.refused[step] = Refusal(reason)
        out = status == OUT_OF_TIME or self._spent >= self._limits.cpu
        if out or len(self.refused) > _MAX_REFUSED:
            self.last = step


def describe_end(status: int, limits: Limits, spent: float) -> str:
    """
    Return why a process was ended.

    :param status: Minus the number of a signal, or :data:`OUT_OF_TIME`.
    :param spent: CPU seconds that it took.
    """
    if status in (-signal.SIGXCPU, -signal.SIGALRM, OUT_OF_TIME):
        cpu = f"took {spent:.0f} s of CPU"
        if status == OUT_OF_TIME:
            return f"ended after {limits.seconds:.0f} s: {cpu}"
        return f"{cpu}, and was ended: that is no healthy kernel, or a busy host"
    reason = f"ended by {describe_status(status)}"
    return f"{reason}, as for lack of memory" if status == -signal.SIGKILL else reason


def describe_status(status: int | None) -> str:
    """Return how a process ended: its exit status, or the signal that ended it."""
    if status is None or status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
