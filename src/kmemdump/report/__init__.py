# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers for people: a report is a record; text, HTML and JSON are views of it."""

from kmemdump.report.from_log import gather_from_log
from kmemdump.report.gather import gather
from kmemdump.report.report import Report
from kmemdump.report.text import print_cause, print_report

__all__ = ["Report", "gather", "gather_from_log", "print_cause", "print_report"]
