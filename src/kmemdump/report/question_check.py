# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of our own questions a core image answers: found out by putting them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from kmemdump.areas import Area
from kmemdump.kernel.attach import Kernel
from kmemdump.marking.mark import hindrance
from kmemdump.memory.recorder import Budget
from kmemdump.questions.question import attempt, explain

__all__ = ["Tried", "try_questions"]

_logger = logging.getLogger(__name__)
_BUDGET = Budget(reads=2_000_000, bytes=256 << 20, seconds=20)


@dataclass(frozen=True, slots=True)
class Tried:
    """A question that was put."""

    area: str
    question: str
    answered: bool
    reason: str = ""
    """Why not."""


def try_questions(kernel: Kernel, areas: Iterable[Area]) -> list[Tried]:
    """
    Put the questions of areas, and see whether there is an answer.

    The areas are those of our own code: what a file says that it answers is not run.
    """
    found = []
    for area in areas:
        for question in area.questions:
            _logger.info("asking %s", question.text)
            reason = hindrance(kernel, question) or ""
            if not reason:
                with kernel.recorder.reading(_BUDGET):
                    _, error = attempt(kernel.prog, question)
                reason = "" if error is None else explain(error)
            found.append(Tried(area.name, question.text, not reason, reason))
    return found
