# SPDX-License-Identifier: GPL-2.0-or-later
"""How often a kernel is looked at: so often that it costs little."""

from __future__ import annotations

__all__ = ["Pace", "is_late"]

_MOST = 0.01
"""CPU seconds of looks per second."""
_SAVED = 100
"""Intervals whose unused CPU time a dear look may take."""
_LATE = 2.0
"""A look is late after this many intervals, and :data:`_PATIENCE`."""
_PATIENCE = 60.0
"""Seconds that a look may take on a busy host, or a failed one until the next."""


def is_late(last: float, interval: float, now: float) -> bool:
    """
    Return whether there should have been another look.

    :param last: Time of the last look, in seconds, as *now*.
    :param interval: Seconds from its start to the next.
    """
    return now - last > _LATE * interval + _PATIENCE


class Pace:
    """
    Says when to look next, so that looks take no more than 1 % of one CPU.

    A look that asks for everything costs several times what others do. It takes what
    the others left.

    :param asked: Seconds from the start of a look to the next, whatever looks cost;
        ``None`` if nobody asked for that.
    :param usual: The interval in that case, unless looks are dear.
    """

    def __init__(self, asked: float | None, usual: float) -> None:
        self._asked = asked
        self._usual = usual
        self._saved = 0.0
        self.interval = usual if asked is None else asked
        """Seconds from the start of the last look to the next."""

    def count(self, cost: float) -> float:
        """
        Count a look, and return the interval to the next one.

        :param cost: CPU seconds that it took.
        """
        if self._asked is None:
            allowed = self.interval * _MOST
            most = self._usual * _MOST * _SAVED
            # What the look before left, or took beyond its share, counts, too.
            self._saved = min(self._saved + allowed, most) - cost
            self.interval = max(self._usual, self._usual - self._saved / _MOST)
        return self.interval
