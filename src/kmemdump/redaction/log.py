# SPDX-License-Identifier: GPL-2.0-or-later
"""Redact a mere log, before a report is made of it."""

from __future__ import annotations

from dataclasses import replace

from kmemdump.areas.contents import OTHER_TEXT
from kmemdump.formats.logged_line import KERNEL, LoggedLine
from kmemdump.logs.log_text import LogText
from kmemdump.redaction.policy import Policy
from kmemdump.redaction.text import Masker

__all__ = ["redacted_log"]

_NAME = "a log"
"""What a report is made of: names of files and folders say whose it is."""


def redacted_log(log: LogText, policy: Policy) -> LogText:
    """
    Return a log without the data that a policy removes.

    There is no kernel that knows its symbols: a policy that keeps only words keeps no
    names of functions. What programs wrote among the kernel's lines is other text.
    """
    masker = Masker(policy)
    for boot in log.boots:
        for line in boot:
            if line.host:
                masker.add_value("host-names", line.host.encode())

    def redacted(line: LoggedLine) -> LoggedLine:
        kind = "log-text" if line.facility == KERNEL else OTHER_TEXT
        host = line.host and masker.mask_text("host-names", line.host)
        return replace(line, text=masker.mask_text(kind, line.text), host=host)

    boots = tuple(tuple(map(redacted, boot)) for boot in log.boots)
    return replace(log, name=_NAME, boots=boots)
