# SPDX-License-Identifier: GPL-2.0-or-later
"""What was read for a question, and what it may take."""

from __future__ import annotations

import math
from array import array
from collections.abc import Hashable, Iterable, Set
from dataclasses import dataclass, field, replace

from kmemdump.memory.ranges import Range, unit_ranges
from kmemdump.memory.spans import BLOCK_SIZE, Changes, pack, span_blocks, touches

__all__ = ["Budget", "Part", "PartReads", "Reading", "block_ranges"]

_WALL_FACTOR = 10
"""How much longer than its CPU time a question may take."""

Part = tuple[str, Hashable]
"""Name of a loop, and what identifies an object in it."""


@dataclass(frozen=True, slots=True)
class Budget:
    """
    Limits for one question: inconsistent (live) or corrupt (dead) memory could make it
    read without end.

    What bounds its work is CPU time: on a busy host, an honest question takes no more
    of it. It may take much longer, unless something waits for it.
    """

    reads: int = 4_000_000
    bytes: int = 128 << 20
    """Bytes of distinct blocks."""
    seconds: float = 30.0
    """CPU seconds of the thread that puts it."""
    patience: float = math.inf
    """Seconds that it may take, for who waits; at most ten times :attr:`seconds`."""

    def raised(self, time: float, memory: float) -> Budget:
        """Return a budget of so many times the time and reads, and the bytes."""
        return replace(
            self,
            reads=int(self.reads * time),
            bytes=int(self.bytes * memory),
            seconds=self.seconds * time,
        )

    @property
    def wall(self) -> float:
        """Seconds that it may take, however busy the host is, or slow its disk."""
        return min(self.patience, _WALL_FACTOR * self.seconds)


@dataclass(frozen=True, slots=True)
class PartReads:
    """What was read for a part of a question."""

    spans: array[int]
    """See :mod:`kmemdump.memory.spans`."""
    blocks: array[int]
    """Physical addresses in units of :data:`BLOCK_SIZE`, in order."""
    volatile: bool = False
    """Whether it read what always changes."""

    @classmethod
    def pack(cls, spans: set[int], volatile: bool) -> PartReads:
        """Return this in little memory."""
        return cls(pack(spans), pack(span_blocks(spans)), volatile)

    def changed(self, changes: Changes) -> bool:
        """Return whether any of it is not what it was."""
        if self.volatile:
            return True
        # Most parts share no block with what changed.
        return not changes.blocks.isdisjoint(self.blocks) and touches(
            changes, self.spans
        )

    def without(self, blocks: Set[int]) -> PartReads:
        """Return this without what was read in some blocks, which do not change."""
        left = {it for it in self.spans if not blocks & span_blocks((it,))}
        return PartReads.pack(left, self.volatile)


_NOTHING = PartReads(array("Q"), array("Q"))


@dataclass(slots=True)
class Reading:
    """What was read during one :meth:`Recorder.reading`."""

    budget: Budget
    frame: PartReads = _NOTHING
    """What was read outside of parts."""
    parts: dict[Part, PartReads] = field(default_factory=dict)
    """What was read for each part."""
    kept: set[Part] = field(default_factory=set)
    """Parts that were met and left out, since they are unchanged."""
    reads: int = 0
    seconds: float = 0.0
    """How long it took: not CPU time."""
    missing: int | None = None
    """Physical address of the first read that failed, if any."""
    in_parts: int = 0
    """Spans of the parts that have ended; two parts may have the same."""
    counted: tuple[int, int] = (0, 0)
    """Spans when blocks were last counted, and bytes of blocks then."""

    @property
    def blocks(self) -> set[int]:
        """Physical addresses in units of :data:`BLOCK_SIZE`."""
        return set(self.frame.blocks).union(*(it.blocks for it in self.parts.values()))

    @property
    def ranges(self) -> list[Range]:
        return block_ranges(self.blocks)


def block_ranges(blocks: Iterable[int]) -> list[Range]:
    """Return the merged ranges of distinct blocks."""
    return unit_ranges(blocks, BLOCK_SIZE)
