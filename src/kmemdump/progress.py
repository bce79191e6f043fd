# SPDX-License-Identifier: GPL-2.0-or-later
"""Report the progress of long work, by logging: most callers show none."""

from __future__ import annotations

import logging

__all__ = ["LOGGER", "SHARE", "report_progress"]

LOGGER = "kmemdump.progress"
"""Name of the logger, which gets all reports at level DEBUG."""
SHARE = "share"
"""The attribute of a record that says how much is done, from 0 to 1."""

_logger = logging.getLogger(LOGGER)


def report_progress(what: str, done: int, total: int) -> None:
    """
    Report that *done* of *total* is done.

    :param what: The work, as in ``copying memory``.
    """
    if _logger.isEnabledFor(logging.DEBUG):
        _logger.debug("%s", what, extra={SHARE: done / total if total else 1.0})
