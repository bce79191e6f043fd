# SPDX-License-Identifier: GPL-2.0-or-later
"""Select what to mark: areas, and further questions, variables and ranges."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, Unpack

from kmemdump.areas import Area, choose_areas
from kmemdump.memory.reading import Budget
from kmemdump.questions.parse import parse_questions
from kmemdump.questions.question import Question

__all__ = ["Selection", "Wanted", "select"]


@dataclass(frozen=True, slots=True)
class Selection:
    """A selection of what to mark, for many looks."""

    areas: Sequence[Area]
    questions: Sequence[Question] = ()
    symbols: Sequence[str] = ()
    regions: Sequence[tuple[str, int, int]] = ()
    """Names, kernel virtual addresses and sizes in bytes."""
    vmlinux: Path | None = None
    budget: Budget = field(default_factory=Budget)
    search: Mapping[str, str] | None = None
    """
    The environment in which the debug file of a kernel is looked for if memory lacks
    symbols or types; ``None`` if it is not looked for.
    """
    named: bool = False
    """
    Whether areas were named. If not, and with a vmlinux, area ``symbols`` is left out
    for a kernel that has no symbols in its memory.
    """


class Wanted(TypedDict, total=False):
    """Keywords that select what to mark; :func:`kmemdump.capture` explains them."""

    areas: Iterable[str | Area]
    questions: Iterable[str | Question]
    symbols: Iterable[str]
    regions: Iterable[tuple[str, int, int]]
    vmlinux: str | os.PathLike[str] | None
    budget: Budget | None
    search: Mapping[str, str] | None


def select(*, early: bool = False, **given: Unpack[Wanted]) -> Selection:
    """
    Select what to mark.

    :param early: Whether the dump has only what was marked before, see
        :class:`~kmemdump.areas.Area`.
    :raises UsageError: If there is no such area, or a text is not a question.
    """
    wanted = list(given.get("areas", ()))
    vmlinux = given.get("vmlinux")
    return Selection(
        choose_areas(wanted, early=early),
        parse_questions(given.get("questions", ())),
        tuple(given.get("symbols", ())),
        tuple(given.get("regions", ())),
        Path(vmlinux) if vmlinux is not None else None,
        given.get("budget") or Budget(),
        given.get("search"),
        named=any(isinstance(it, Area) or it[:1] not in ("+", "-") for it in wanted),
    )
