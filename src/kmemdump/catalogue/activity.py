# SPDX-License-Identifier: GPL-2.0-or-later
"""When the deaths of each group were, as a row of numbers to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kmemdump.catalogue.database import Database
from kmemdump.catalogue.questions import OF_GROUPS

__all__ = ["Activity", "find_activity"]

_BARS = 30
_WIDTHS = (
    ("an hour", 3600),
    ("6 hours", 6 * 3600),
    ("a day", 86_400),
    ("3 days", 3 * 86_400),
    ("a week", 7 * 86_400),
    ("2 weeks", 14 * 86_400),
    ("30 days", 30 * 86_400),
)
_LAST = 2.2e11
"""Seconds since 1970; later times have no bars."""
_LEFT_OUT = 0.02
"""Part of all deaths that may be older than the first bar: clocks are wrong."""


@dataclass(frozen=True, slots=True)
class Activity:
    """Deaths per bar, from an oldest one up to the latest death."""

    unit: str
    """Width of a bar, in words."""
    start: datetime
    """Where the first bar begins."""
    seconds: int
    """Width of a bar."""
    all: Sequence[int]
    """Deaths in each bar."""
    groups: Mapping[str, Sequence[int]]
    """The same by signature, of the groups that were asked for."""

    def end_of(self, bar: int) -> datetime:
        """Return where a bar ends."""
        return self.start + timedelta(seconds=self.seconds * (bar + 1))


def find_activity(database: Database, signatures: Sequence[str]) -> Activity | None:
    """
    Return when kernels died; None without a death.

    :param signatures: Of the groups to look at, besides all.
    """
    some = "FROM deaths WHERE signature IS NOT NULL"
    last, usual = database.rows(
        f"SELECT epoch(max(seen)), approx_quantile(epoch(seen), {_LEFT_OUT}) {some}"
    )[0]
    if last is None or not 0 <= last < _LAST or usual is None:
        return None
    unit, seconds = next(
        (it for it in _WIDTHS if last - usual < _BARS * it[1]), _WIDTHS[-1]
    )
    end = int(last // seconds) + 1
    bars = f"floor(epoch(seen) / {seconds})::BIGINT - {end - _BARS} AS bar, count(*)"
    counted = "GROUP BY ALL HAVING bar >= 0"
    everything = [0] * _BARS
    for bar, count in database.rows(f"SELECT {bars} {some} {counted}"):
        everything[bar] += count
    groups: dict[str, list[int]] = {}
    for signature, bar, count in database.rows(
        f"SELECT signature, {bars} FROM deaths {OF_GROUPS} {counted}", [signatures]
    ):
        groups.setdefault(signature, [0] * _BARS)[bar] += count
    start = datetime.fromtimestamp((end - _BARS) * seconds, UTC)
    return Activity(unit, start, seconds, everything, groups)
