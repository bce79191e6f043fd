# SPDX-License-Identifier: GPL-2.0-or-later
"""Mask the texts in a memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from kmemdump.memory.physical import Memory
from kmemdump.redaction.reads import TextRun
from kmemdump.redaction.tally import Tally
from kmemdump.redaction.text import Masker

__all__ = ["Texts", "choose_texts"]


def choose_texts(read: Iterable[TextRun], known: Sequence[TextRun]) -> list[TextRun]:
    """Return the known texts, and those that were read elsewhere."""
    ordered = sorted(known)
    starts = [run.start for run in ordered]

    def is_known(run: TextRun) -> bool:
        i = bisect_right(starts, run.start + run.size - 1) - 1
        return i >= 0 and ordered[i].start + ordered[i].size > run.start

    return [*ordered, *(run for run in read if not is_known(run))]


class Texts:
    """Masks texts, and counts."""

    def __init__(
        self,
        memory: Memory,
        masker: Masker,
        tally: Tally,
        known: Iterable[TextRun],
    ) -> None:
        self._memory = memory
        self._known = frozenset(known)
        self._masker = masker
        self._tally = tally

    def note_values(self, runs: Iterable[TextRun]) -> None:
        for run in runs:
            if run.kind in self._masker.policy.spread:
                self._masker.add_value(run.kind, self._read(run).partition(b"\0")[0])

    def masked(self, run: TextRun) -> bytes:
        """Return what is put in the place of a text."""
        before = text = self._read(run)
        if run.kind != "log-text" and run in self._known:
            text = before.partition(b"\0")[0]  # Behind it is what was there before.
        pieces = (
            self._masker.mask(run.kind, it) if len(it) > 1 else it
            for it in text.split(b"\0")
        )
        after = b"\0".join(pieces).ljust(run.size, b"\0")
        gone = sum(one != other for one, other in zip(before, after, strict=True))
        if gone:
            self._tally.removed[run.kind] += gone
            self._tally.places[run.kind] += 1
        self._tally.kept[run.kind] += sum(
            one == other and one not in b"\0x"
            for one, other in zip(text, after[: len(text)], strict=True)
        )
        return after

    def _read(self, run: TextRun) -> bytes:
        return self._memory.read(run.start, run.size)
