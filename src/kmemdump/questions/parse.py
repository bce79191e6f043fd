# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions as a user types them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kmemdump.questions.crash_commands import command
from kmemdump.questions.python_files import load_questions
from kmemdump.questions.question import Question

__all__ = ["parse_question", "parse_questions"]


def parse_question(text: str) -> list[Question]:
    """
    Return what a user typed: a crash command, or the questions in ``FILE.py``.

    :raises UsageError: If it is neither.
    """
    if text.endswith(".py"):
        return load_questions(Path(text))
    return [command(text, trusted=True)]


def parse_questions(items: Iterable[str | Question]) -> list[Question]:
    """
    Return all questions, those that are text parsed.

    :raises UsageError: If one of them is no question.
    """
    found: list[Question] = []
    for item in items:
        found += [item] if isinstance(item, Question) else parse_question(item)
    return found
