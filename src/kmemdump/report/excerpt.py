# SPDX-License-Identifier: GPL-2.0-or-later
"""Which records of the log a reader wants to see."""

from __future__ import annotations

from kmemdump.diagnosis.records import CauseKind
from kmemdump.report.records import Findings

__all__ = ["MOST_RECORDS", "find_excerpt"]

MOST_RECORDS = 100
"""How many records are shown unless somebody asks for more."""
_LAST = 30
"""How many of the last are shown if the log does not tell of a death."""
_BEFORE = 10
"""How many are shown before the first that tells of it."""


def find_excerpt(
    report: Findings, lines: int | None = None, most: int = MOST_RECORDS
) -> range:
    """
    Return the positions of the records that are to be shown.

    :param lines: How many of the last are asked for; ``None`` for what led to the
        death.
    :param most: How many may be shown then.
    """
    total = len(report.log)
    if lines is not None:
        return range(max(total - lines, 0), total)
    start = total - min(_LAST, most)
    first = _first_telling(report, most)
    if first is not None:
        start = min(start, first - _BEFORE)
    start = max(start, 0)
    return range(start, min(start + most, total))


def _first_telling(report: Findings, most: int) -> int | None:
    """Return the position of the first record that tells of the death."""
    told = {record.sequence for record in report.cause.log}
    found = [i for i, record in enumerate(report.log) if record.sequence in told]
    if not report.cause.fatal or report.cause.kind is CauseKind.HANG:
        # Complaints may be old, and the end of the log matters more.
        oldest = len(report.log) - most + _BEFORE
        found = [i for i in found if i >= oldest]
    return found[0] if found else None
