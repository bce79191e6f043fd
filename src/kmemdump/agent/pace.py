# SPDX-License-Identifier: GPL-2.0-or-later
"""How often an agent looks at the kernel: its cost is bounded, not its interval."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Pace"]

_INTERVAL = 300.0
_MOST = 0.01


@dataclass(frozen=True, slots=True)
class Pace:
    """The time between two looks."""

    asked: float | None = None
    """
    Seconds from the start of a look to the next, whatever they cost. ``None`` looks
    every 300 s, or less often, so that looks take at most 1 % of one CPU.
    """

    def interval(self, cost: float = 0.0) -> float:
        """
        Return the seconds from the start of a look to the next.

        :param cost: CPU seconds that the look took.
        """
        if self.asked is not None:
            return self.asked
        return max(_INTERVAL, cost / _MOST)
