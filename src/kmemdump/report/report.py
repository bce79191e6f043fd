# SPDX-License-Identifier: GPL-2.0-or-later
"""A report: findings, and the ways to show them."""

from __future__ import annotations

from typing import Any

from kmemdump.report.mail import to_mail
from kmemdump.report.records import Findings
from kmemdump.report.schema import to_json
from kmemdump.report.sentry import to_sentry
from kmemdump.report.text import to_text
from kmemdump.report.ureport import to_ureport

__all__ = ["Report"]


class Report(Findings):
    """What happened to a kernel; printed, it is text."""

    __slots__ = ()

    def __str__(self) -> str:
        return to_text(self)

    def to_text(self, *, lines: int | None = None) -> str:
        """
        Return the report as text, 100 columns wide.

        :param lines: How many of the log's last records to show; ``None`` for those
            that led to the death.
        """
        return to_text(self, lines=lines)

    def to_json(self) -> dict[str, Any]:
        """Return the report, with the whole log, as input for :func:`json.dumps`."""
        return to_json(self)

    def to_ureport(self) -> dict[str, Any]:
        """Return the report as ABRT's uReport, as input for :func:`json.dumps`."""
        return to_ureport(self)

    def to_sentry(self) -> dict[str, Any]:
        """Return the report as an event of Sentry, as input for :func:`json.dumps`."""
        return to_sentry(self)

    def to_mail(self) -> str:
        """Return text to paste into a mail to the kernel's mailing lists."""
        return to_mail(self)

    def to_html(self) -> str:
        """Return the report as one self-contained page for a browser."""
        # It loads Jinja, which takes a tenth of the time of a report as text.
        from kmemdump.report.html import to_html

        return to_html(self)
