# SPDX-License-Identifier: GPL-2.0-or-later
"""The records of the log that a report shows."""

from __future__ import annotations

from kmemdump.diagnosis.records import CauseKind
from kmemdump.report.records import Findings

__all__ = ["MAX_RECORDS", "find_excerpt"]

MAX_RECORDS = 100
"""How many records are shown unless more are asked for."""
_LAST = 30
"""How many of the last are shown if none is evidence of the death."""
_BEFORE = 10
"""How many are shown before the first that is evidence."""


def find_excerpt(
    report: Findings, lines: int | None = None, most: int = MAX_RECORDS
) -> range:
    """
    Return the positions of the records to show.

    :param lines: How many of the last are asked for; ``None`` for those that led to
        the death.
    :param most: How many may be shown then.
    """
    total = len(report.log)
    if lines is not None:
        return range(max(total - lines, 0), total)
    start = total - min(_LAST, most)
    first = _first_evidence(report, most)
    if first is not None:
        start = min(start, first - _BEFORE)
    start = max(start, 0)
    return range(start, min(start + most, total))


def _first_evidence(report: Findings, most: int) -> int | None:
    """Return the position of the first record that is evidence of the death."""
    evidence = {record.sequence for record in report.cause.log}
    found = [i for i, record in enumerate(report.log) if record.sequence in evidence]
    if not report.cause.fatal or report.cause.kind is CauseKind.HANG:
        # Warnings may be old; the end of the log matters more.
        oldest = len(report.log) - most + _BEFORE
        found = [i for i in found if i >= oldest]
    return found[0] if found else None
