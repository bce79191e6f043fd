# SPDX-License-Identifier: GPL-2.0-or-later
"""Which questions of ours a core image answers: each is put to it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from kmemdump.areas import Area
from kmemdump.kernel.attach import Kernel
from kmemdump.marking.mark import hindrance
from kmemdump.memory.recorder import Budget
from kmemdump.questions.question import attempt, explain

__all__ = ["QuestionCheck", "check_questions"]

_logger = logging.getLogger(__name__)
_BUDGET = Budget(reads=2_000_000, bytes=256 << 20, seconds=20)


@dataclass(frozen=True, slots=True)
class QuestionCheck:
    """Whether a question was answered."""

    area: str
    question: str
    answered: bool
    reason: str = ""
    """Why it was not."""


def check_questions(kernel: Kernel, areas: Iterable[Area]) -> list[QuestionCheck]:
    """
    Put the questions of areas, and report whether each is answered.

    :param areas: Areas of our own code: questions that a file lists are never run.
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
            found.append(QuestionCheck(area.name, question.text, not reason, reason))
    return found
