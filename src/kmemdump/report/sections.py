# SPDX-License-Identifier: GPL-2.0-or-later
"""Gather each section of a report on its own, so that none stops the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from drgn import FaultError

from kmemdump.errors import KmemdumpError
from kmemdump.kernel.optional import ABSENT
from kmemdump.memory.reading import Budget
from kmemdump.memory.recorder import Recorder
from kmemdump.report.records import Loss

__all__ = ["SECTION_BUDGET", "Sections", "reason"]

SECTION_BUDGET = Budget(reads=2_000_000, bytes=256 << 20, seconds=20)
"""Limit on the cost of one section."""

_S = TypeVar("_S")
_T = TypeVar("_T")
_logger = logging.getLogger(__name__)


class Sections:
    """
    Gathers the sections of a report.

    :param budget: Limit on the cost of each section.
    """

    def __init__(self, recorder: Recorder, budget: Budget = SECTION_BUDGET) -> None:
        self._recorder = recorder
        self._budget = budget
        self.missing: list[Loss] = []
        """Sections that failed, or lack something, and why."""

    def find(self, what: str, find: Callable[[], _T], default: _T) -> _T:
        """
        Find the contents of a section.

        :param what: Words for what is missing if *find* fails.
        :return: *default* if *find* fails.
        """
        _logger.info("looking for %s", what)
        try:
            with self._recorder.reading(self._budget, what):
                return find()
        except Exception as error:
            # On a dead kernel's memory, drgn's helpers may raise anything.
            self.missing.append(Loss(what, reason(error)))
            return default

    def collect(
        self, what: str, items: Callable[[], Iterable[_S]], make: Callable[[_S], _T]
    ) -> tuple[_T, ...]:
        """
        Find the contents of a section that is a list; items that fail are left out.

        :param items: Yields the items, as far as they can be found.
        :param make: Makes a record of an item.
        """
        _logger.info("looking for %s", what)
        found: list[_T] = []
        problem: Exception | None = None
        try:
            with self._recorder.reading(self._budget, what):
                for item in items():
                    try:
                        found.append(make(item))
                    except ABSENT as error:
                        problem = problem or error
        except Exception as error:  # As above; or the budget is spent.
            problem = problem or error
        if problem is not None:
            what = f"a part of {what}" if found else what
            self.missing.append(Loss(what, reason(problem)))
        return tuple(found)


def reason(error: Exception) -> str:
    """Return why something could not be read, in one line."""
    text = str(error)
    if isinstance(error, FaultError):
        text = f"memory that it needs was not captured: {error.message}"
    elif not isinstance(error, KmemdumpError):
        text = f"{type(error).__name__}: {text}"
    return " ".join(text.split())
