# SPDX-License-Identifier: GPL-2.0-or-later
"""How often an agent looks at the kernel: what it costs is bounded, not how often."""

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
    Seconds from the start of a look to the next, whatever they cost; ``None`` looks
    every 300 s, but no more often than so that looks take 1 % of one CPU.
    """

    def interval(self, cost: float = 0.0) -> float:
        """
        Return the seconds from the start of a look to the next.

        :param cost: CPU seconds that the look took.
        """
        if self.asked is not None:
            return self.asked
        return max(_INTERVAL, cost / _MOST)
