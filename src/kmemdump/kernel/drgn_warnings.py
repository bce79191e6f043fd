# SPDX-License-Identifier: GPL-2.0-or-later
"""
What drgn warns of while a question is put.

drgn's commands log a warning where a part of the answer is missing, and go on: half an
answer looks like a whole one to a program. Such a warning belongs to the question, and
is not logged besides.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["collected_warnings"]

_MOST = 20
"""Most warnings that are kept; a damaged kernel could cause any number."""
_DOUBT = "may be inconsistent"
"""
In the text where drgn doubts a value that it has: drgn's helpers/linux/timekeeping.py
says so of a clock that was being updated, which differs by a tick at most.
"""

_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)
"""The warnings of the question that this thread, or task, puts."""


class _Collector(logging.Filter):
    """Takes warnings out of the log where a question is being put."""

    def filter(self, record: logging.LogRecord) -> bool:
        collected = _collected.get()
        if collected is None or record.levelno < logging.WARNING:
            return True
        line = " ".join(record.getMessage().split())
        if _DOUBT in line:
            return True
        if line not in collected and len(collected) < _MOST:
            collected.append(line)
        return False


# Installed once and for all: threads put questions at the same time, and each has a
# list of its own.
_drgn = logging.getLogger("drgn")
_drgn.addFilter(_Collector())
_other_unraisable = sys.unraisablehook


def _log_what_is_no_text(unraisable: sys.UnraisableHookArgs) -> None:
    """
    Log a message of drgn that is not UTF-8, such as one with a damaged name in it.

    drgn passes its messages to :mod:`logging` as UTF-8, and Python reports those that
    are not: drgnpy_log_fn(), drgn's libdrgn/python/program.c.
    """
    error = unraisable.exc_value
    if isinstance(error, UnicodeDecodeError) and unraisable.object == _drgn.log:
        _drgn.warning("%s", error.object.decode("utf-8", "replace"))
    else:
        _other_unraisable(unraisable)


sys.unraisablehook = _log_what_is_no_text


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect the warnings of drgn, each once, that the body causes in its thread."""
    collected: list[str] = []
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)
