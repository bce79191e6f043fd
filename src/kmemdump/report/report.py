# SPDX-License-Identifier: GPL-2.0-or-later
"""A report: findings, and the ways to show them."""

from __future__ import annotations

from typing import Any

from kmemdump.report.html import to_html
from kmemdump.report.records import Findings
from kmemdump.report.schema import to_json
from kmemdump.report.text import to_text

__all__ = ["Report"]


class Report(Findings):
    """What happened to a kernel; printed, it is text."""

    __slots__ = ()

    def __str__(self) -> str:
        return to_text(self)

    def to_text(self, *, lines: int | None = None) -> str:
        """
        Return it as text, 100 columns wide.

        :param lines: How many of the log's last records to show; ``None`` for what led
            to the death.
        """
        return to_text(self, lines=lines)

    def to_json(self) -> dict[str, Any]:
        """Return it as what :func:`json.dumps` takes, the log whole."""
        return to_json(self)

    def to_html(self) -> str:
        """Return it as one page for a browser, which needs nothing else."""
        return to_html(self)
