# SPDX-License-Identifier: GPL-2.0-or-later
"""How answers changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from operator import ne

from kmemdump.redaction.look import Answer

__all__ = ["Change", "compare"]


@dataclass(frozen=True, slots=True)
class Change:
    """How the answer to a question changed."""

    area: str
    question: str
    same: bool
    lines: int
    """Lines of the answer now."""
    changed: int
    """Those of them that are others, or new."""
    gone: int
    """Lines that there were before, and no others in their place."""
    problem: str | None = None
    """Why there is no answer any more, or only a part of it."""


def compare(before: Answer, after: Answer) -> Change:
    """
    Compare two answers to a question, in a time that grows with their lines.

    Masks keep lengths: line by line, unless some are missing.
    """
    old, new = before.text.splitlines(), after.text.splitlines()
    if len(old) == len(new):
        changed = sum(map(ne, old, new))
    else:
        changed = len(new) - (Counter(old) & Counter(new)).total()
    gone = max(len(old) - len(new), 0)
    same = old == new and before.problem == after.problem
    problem = after.problem if before.problem is None else None
    return Change(before.area, before.question, same, len(new), changed, gone, problem)
