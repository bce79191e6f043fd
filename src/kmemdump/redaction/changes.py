# SPDX-License-Identifier: GPL-2.0-or-later
"""How answers changed."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher

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
    """Compare two answers to a question."""
    old, new = before.text.splitlines(), after.text.splitlines()
    changed = gone = 0
    if old != new:
        blocks = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        for tag, i, j, k, m in blocks:
            if tag != "equal":
                changed += m - k
                gone += max(j - i - (m - k), 0)
    same = old == new and before.problem == after.problem
    problem = after.problem if before.problem is None else None
    return Change(before.area, before.question, same, len(new), changed, gone, problem)
