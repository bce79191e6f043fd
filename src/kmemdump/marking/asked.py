# SPDX-License-Identifier: GPL-2.0-or-later
"""What a question read, so that the next look asks again only for what changed."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field, replace

from kmemdump.marking.selection import Selection
from kmemdump.memory.ranges import Range
from kmemdump.memory.reading import Part, PartReads, Reading
from kmemdump.memory.spans import Changes
from kmemdump.questions.question import Question

__all__ = ["Asked", "History", "QuestionResult"]


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """The result of a question."""

    text: str
    reason: str | None
    """Why it could not be answered; ``None`` if it was."""
    without_registers: bool = False
    """
    Whether only registers are missing: those of the CPU that runs the task in question.
    Area ``stacks`` has the whole stack.
    """


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that was put, in one look or in parts in several."""

    question: Question
    result: QuestionResult
    frame: PartReads
    """What was read outside of its parts."""
    parts: dict[Part, PartReads]
    counts: dict[int, int]
    """
    Blocks, and how many parts need each. The next look changes it, when this object is
    not needed any more.
    """
    seconds: float
    hidden: frozenset[int] = field(default=frozenset())
    """
    Blocks that are needed, and not read again: drgn keeps in its program what it has
    read of them. It does so only if that does not change while a kernel runs.
    """

    @classmethod
    def of(cls, question: Question, reading: Reading, result: QuestionResult) -> Asked:
        """Return a question that was put for the first time."""
        counts: dict[int, int] = {}
        for reads in (reading.frame, *reading.parts.values()):
            _add(counts, reads.blocks)
        parts, seconds = reading.parts, reading.seconds
        return cls(question, result, reading.frame, parts, counts, seconds)

    @property
    def blocks(self) -> Set[int]:
        """All blocks that the answer needs."""
        return self.counts.keys() | self.hidden

    def changed(self, changes: Changes) -> bool:
        """Return whether anything that was read is not what it was."""
        reads = (self.frame, *self.parts.values())
        return any(it.changed(changes) for it in reads)

    def updated(self, reading: Reading, result: QuestionResult) -> Asked:
        """
        Return this question after it was put again.

        :param reading: What was read, with the parts that were left out.
        """
        counts = self.counts
        parts = {part: self.parts[part] for part in reading.kept}
        for part, reads in self.parts.items():
            if part not in parts and part not in reading.parts:
                _remove(counts, reads.blocks)
        for part, reads in reading.parts.items():
            _replace(counts, self.parts.get(part), reads)
        _replace(counts, self.frame, reading.frame)
        parts.update(reading.parts)
        return replace(
            self,
            result=result,
            frame=reading.frame,
            parts=parts,
            seconds=reading.seconds,
        )

    def remembering(self, blocks: Set[int]) -> Asked:
        """Return this question with further hidden blocks."""
        return replace(self, hidden=self.hidden | blocks) if blocks else self


@dataclass(slots=True)
class History:
    """The looks at a kernel since all questions were put."""

    selection: Selection
    ranges: tuple[Range, ...]
    """The memory that there was."""
    looks: int = 0
    """How many looks have asked only for what changed."""
    knows_hidden: bool = False
    """Whether it is known what is needed, and not read again."""
    pages: int = 0
    """How many pages were compared when it was last found out which are needed."""
    usable: bool = True
    """Whether a next look can rely on it: not if one was broken off."""


def _replace(counts: dict[int, int], before: PartReads | None, now: PartReads) -> None:
    if before is not None:
        if before.blocks == now.blocks:
            return
        _remove(counts, before.blocks)
    _add(counts, now.blocks)


def _add(counts: dict[int, int], blocks: Iterable[int]) -> None:
    for block in blocks:
        counts[block] = counts.get(block, 0) + 1


def _remove(counts: dict[int, int], blocks: Iterable[int]) -> None:
    for block in blocks:
        left = counts[block] - 1
        if left:
            counts[block] = left
        else:
            del counts[block]
