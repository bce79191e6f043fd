# SPDX-License-Identifier: GPL-2.0-or-later
"""
Record what drgn reads: the memory that an answer needs.

A :class:`Recorder` sits between drgn and a memory, and limits reads to a budget.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from drgn import FaultError

from kmemdump.bounds.steps import step
from kmemdump.errors import BudgetExceededError, NotCapturedError
from kmemdump.memory.physical import PAGE_SIZE, Memory, PageMemory
from kmemdump.memory.ranges import Range, unit_ranges

__all__ = ["BLOCK_SIZE", "Budget", "Reading", "Recorder", "block_ranges"]

BLOCK_SIZE = 512
"""
Granularity of recording in bytes. Structures that are read together rarely fill a page:
recording pages would mark twice as much.
"""
_BLOCKS = PAGE_SIZE // BLOCK_SIZE

_READS_BETWEEN_CHECKS = 1000
_MAX_PAGES = (512 << 20) // PAGE_SIZE
"""Most pages that a recorder keeps, even if a damaged kernel makes it read more."""


@dataclass(frozen=True, slots=True)
class Budget:
    """
    Limits for one question: inconsistent (live) or corrupt (dead) memory could make it
    read without end.
    """

    reads: int = 4_000_000
    bytes: int = 128 << 20
    """Bytes of distinct blocks."""
    seconds: float = 30.0


@dataclass(slots=True)
class Reading:
    """What was read during one :meth:`Recorder.reading`."""

    budget: Budget
    blocks: set[int] = field(default_factory=set)
    """Physical addresses in units of :data:`BLOCK_SIZE`."""
    reads: int = 0
    seconds: float = 0.0
    missing: int | None = None
    """Physical address of the first read that failed, if any."""

    @property
    def ranges(self) -> list[Range]:
        return block_ranges(self.blocks)


def block_ranges(blocks: Iterable[int]) -> list[Range]:
    """Return the merged ranges of distinct blocks."""
    return unit_ranges(blocks, BLOCK_SIZE)


def _forget(block: int) -> None:
    """Record nothing, for reads outside of a reading."""


class Recorder:
    """
    Memory for a :class:`drgn.Program` that remembers what was read.

    A page is read once and kept: answers see one state of a page even if the
    kernel is running, and drgn's many small reads are cheap.

    drgn caches some look-ups in its program, so a later question may read less than it
    would alone: only the union over all readings is meaningful.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.misses = 0
        """How many reads failed because *memory* lacks what they asked for."""
        self.last_missing = 0
        """Physical address of the last of them."""
        self._pages: dict[int, bytes] = {}
        self._current: Reading | None = None
        self._record: Callable[[int], None] = _forget
        self._deadline = 0.0
        self._reads = 0
        self._check_at = 0

    def recording(self) -> Memory:
        """Return the memory that was read, with its contents at that time."""
        return PageMemory(self._pages)

    @contextmanager
    def reading(
        self, budget: Budget | None = None, what: str = "reading"
    ) -> Iterator[Reading]:
        """
        Record and limit what the body of the ``with`` statement reads.

        Reads past the budget raise :exc:`BudgetExceededError` inside the body.

        :param what: Names the body, as for :func:`kmemdump.bounds.steps.step`.
        :raises BudgetExceededError: Instead of the body, if it is left out.
        """
        if self._current is not None:
            raise RuntimeError("readings do not nest")
        current = self._current = Reading(budget or Budget())
        start = time.monotonic()
        self._deadline = start + current.budget.seconds
        self._record = current.blocks.add
        self._reads = self._check_at = 0
        try:
            with step(what, current.budget.seconds):
                yield current
        finally:
            current.seconds = time.monotonic() - start
            current.reads = self._reads
            self._record = _forget
            self._current = None

    def whole_pages(self, blocks: Iterable[int]) -> frozenset[int]:
        """Return *blocks*, and all blocks of their pages that were read whole."""
        found = set(blocks)
        for page in {block // _BLOCKS for block in found}:
            if page in self._pages:
                found.update(range(page * _BLOCKS, (page + 1) * _BLOCKS))
        return frozenset(found)

    def read(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        """Read for drgn: the callback of ``Program.add_memory_segment()``."""
        # Marking calls this a hundred thousand times.
        low = address % PAGE_SIZE
        end = low + count
        if end > PAGE_SIZE:
            return self._read_pages(address, count)
        data = self._pages.get(address // PAGE_SIZE)
        if data is None:
            return self._load(address, count)
        self._record(address // BLOCK_SIZE)
        if address % BLOCK_SIZE + count > BLOCK_SIZE:
            last = (address + count - 1) // BLOCK_SIZE
            for block in range(address // BLOCK_SIZE + 1, last + 1):
                self._record(block)
        self._reads += 1
        if self._reads >= self._check_at:
            self._check()
        return data[low:end]

    def _read_pages(self, address: int, count: int) -> bytes:
        pieces = []
        while count > 0:
            size = min(count, PAGE_SIZE - address % PAGE_SIZE)
            pieces.append(self.read(address, size, 0, True))
            address, count = address + size, count - size
        return b"".join(pieces)

    def _load(self, address: int, count: int) -> bytes:
        page = address // PAGE_SIZE
        if len(self._pages) >= _MAX_PAGES:
            size = _MAX_PAGES * PAGE_SIZE
            raise BudgetExceededError(f"all questions took more than {size} bytes")
        try:
            try:
                self._pages[page] = self.memory.read(page * PAGE_SIZE, PAGE_SIZE)
            except NotCapturedError:
                # A core image may hold a part of a page.
                data = self.memory.read(address, count)
                last = (address + count - 1) // BLOCK_SIZE
                for block in range(address // BLOCK_SIZE, last + 1):
                    self._record(block)
                self._reads += 1
                self._check()
                return data
        except NotCapturedError as error:
            self.misses += 1
            self.last_missing = address
            if self._current is not None and self._current.missing is None:
                self._current.missing = address
            raise FaultError(str(error), address) from None
        self._check_at = 0  # Check the budget now.
        return self.read(address, count, 0, True)

    def _check(self) -> None:
        self._check_at = self._reads + _READS_BETWEEN_CHECKS
        current = self._current
        if current is None:
            return
        budget = current.budget
        if self._reads > budget.reads:
            problem = f"more than {budget.reads} reads"
        elif len(current.blocks) * BLOCK_SIZE > budget.bytes:
            problem = f"more than {budget.bytes} bytes"
        elif time.monotonic() > self._deadline:
            problem = f"more than {budget.seconds:g} s"
        else:
            return
        self._check_at = 0  # Reading fails again if this is caught.
        raise BudgetExceededError(f"the question took {problem}")
