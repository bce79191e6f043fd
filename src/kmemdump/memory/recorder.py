# SPDX-License-Identifier: GPL-2.0-or-later
"""
Record what drgn reads: the memory that an answer needs.

A :class:`Recorder` sits between drgn and a memory, and limits reads to a budget.

An answer is a function of the bytes that are read for it. So the reads say when it must
be asked for again: when one of these bytes has changed. They are kept apart for each
*part* of a question, such as a task, and for each *memo*, a value that several parts
need.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from drgn import FaultError

from kmemdump.bounds.steps import factors, step
from kmemdump.errors import BudgetExceededError, NotCapturedError
from kmemdump.memory.changes import read_changes
from kmemdump.memory.physical import PAGE_SIZE, Memory, PageMemory
from kmemdump.memory.reading import Budget, Part, PartReads, Reading
from kmemdump.memory.spans import (
    ADDRESS_END,
    BLOCK_SIZE,
    Changes,
    pack,
    span_blocks,
    touches,
)

__all__ = ["Recorder", "current_recorder"]

_BLOCKS = PAGE_SIZE // BLOCK_SIZE

_READS_BETWEEN_CHECKS = 1000
_MAX_PAGES = (512 << 20) // PAGE_SIZE
"""Most pages that a recorder keeps, even if a damaged kernel makes it read more."""
_MAX_MEMOS = 1 << 18
"""Most memos that are kept; others are made each time."""
_MOST_SHARED = 8
"""Most reads of a memo for which it is looked whether another one has the same."""

T = TypeVar("T")


class _Reads:
    """Reads that belong together: their spans, and the memos that were used."""

    __slots__ = ("memos", "spans", "volatile")

    def __init__(self) -> None:
        self.spans: set[int] = set()
        self.memos: set[Hashable] = set()
        self.volatile = False


@dataclass(frozen=True, slots=True)
class _Memo:
    """A value that was made of memory."""

    value: Any
    spans: array[int]
    """What was read for it, memos that it used included."""


_current: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


def current_recorder() -> Recorder | None:
    """Return the recorder that records what this thread, or task, reads."""
    return _current.get()


class Recorder:
    """
    Memory for a :class:`drgn.Program` that remembers what was read.

    A page is read once and kept: answers see one state of a page even if the
    kernel is running, and drgn's many small reads are cheap. :meth:`refresh` reads all
    of them again.

    drgn caches some look-ups in its program, so a later question may read less than it
    would alone: only the union over all readings is meaningful.

    :param divided: Whether to keep the reads of each part apart, for those who look
        again.
    """

    def __init__(self, memory: Memory, *, divided: bool = True) -> None:
        self.memory = memory
        self._divided = divided
        self.misses = 0
        """How many reads failed because *memory* lacks what they asked for."""
        self.last_missing = 0
        """Physical address of the last of them."""
        self._pages: dict[int, bytes] = {}
        self._current: Reading | None = None
        self._unchanged: Collection[Part] = ()
        self._loops: set[str] = set()
        self._looping = False
        self._part: Part | None = None
        self._deadline = self._cpu_deadline = 0.0
        self._reads = 0
        self._check_at = 0
        self._memos: dict[Hashable, _Memo] = {}
        self._shared: dict[tuple[int, ...], array[int]] = {}
        self._frame = _Reads()
        self._switch(_Reads())

    @property
    def size(self) -> int:
        """How many pages are kept."""
        return len(self._pages)

    def recording(self) -> Memory:
        """Return the memory that was read, with its contents at that time."""
        return PageMemory(self._pages)

    @contextmanager
    def reading(
        self,
        budget: Budget | None = None,
        what: str = "reading",
        unchanged: Collection[Part] = (),
    ) -> Iterator[Reading]:
        """
        Record and limit what the body of the ``with`` statement reads.

        Reads past the budget raise :exc:`BudgetExceededError` inside the body.

        :param what: Names the body, as for :func:`kmemdump.bounds.steps.step`.
        :param unchanged: Parts that are left out.
        :raises BudgetExceededError: Instead of the body, if it is left out.
        """
        if self._current is not None:
            raise RuntimeError("readings do not nest")
        budget = budget or Budget()
        # A step raises its own limits.
        current = self._current = Reading(budget.raised(*factors()))
        start = time.monotonic()
        self._deadline = start + current.budget.wall
        self._cpu_deadline = time.thread_time() + current.budget.seconds
        self._unchanged = unchanged
        self._loops, self._looping = set(), False
        self._frame = _Reads()
        self._switch(self._frame)
        self._reads = self._check_at = 0
        token = _current.set(self)
        try:
            with step(what, budget.seconds, budget.wall):
                yield current
        finally:
            _current.reset(token)
            self.end_part()
            current.seconds = time.monotonic() - start
            current.reads = self._reads
            spans = self._expanded(self._frame)
            current.frame = PartReads.pack(spans, self._frame.volatile)
            self._switch(_Reads())  # For reads outside of a reading.
            self._current = None

    def begin_loop(self, name: str) -> bool:
        """
        Begin a loop over parts.

        :param name: Unlike that of other loops of the same question.
        :return: Whether it can be divided: not if it is inside of another one.
        """
        if not self._divided or self._current is None:
            return False
        if self._looping or name in self._loops:
            return False
        if self._now is not self._frame:
            return False
        self._loops.add(name)
        self._looping = True
        return True

    def end_loop(self) -> None:
        """End the loop that began."""
        self._looping = False

    def begin_part(self, part: Part) -> bool:
        """
        Begin a part, whose reads are recorded apart from others.

        :return: Whether it is to be asked for. It has not begun if not.
        """
        current = self._current
        if current is None or self._part is not None:
            return True
        if part in self._unchanged:
            current.kept.add(part)
            return False
        self._part = part
        self._switch(_Reads())
        return True

    def end_part(self) -> None:
        """End the part that began, if any."""
        part, self._part = self._part, None
        current = self._current
        if part is None or current is None:
            return
        reads = self._now
        self._switch(self._frame)
        spans = self._expanded(reads)
        before = current.parts.get(part)  # An item may come twice.
        if before is not None:
            spans.update(before.spans)
            reads.volatile |= before.volatile
        current.parts[part] = PartReads.pack(spans, reads.volatile)
        current.in_parts += len(spans)

    def note_volatile(self) -> None:
        """Note that something was used that always changes, such as registers."""
        self._now.volatile = True

    def recall(self, key: Hashable) -> bool:
        """Use a memo without a value, if it is known."""
        if key in self._memos:
            self._use(key)
            return True
        return False

    def memo(self, key: Hashable, make: Callable[[], T]) -> T:
        """
        Return a value that is made of memory, made before if nothing of it changed.

        What is read to make it counts as read by whoever uses it.

        :param key: Identifies the value.
        :param make: Depends on nothing but memory and *key*.
        """
        found = self._memos.get(key)
        if found is None:
            outer, reads = self._now, _Reads()
            self._switch(reads)
            try:
                value = make()
            except BaseException:
                outer.spans.update(self._expanded(reads))
                raise
            finally:
                self._switch(outer)
                outer.volatile |= reads.volatile
            spans = self._expanded(reads)
            if reads.volatile or len(self._memos) >= _MAX_MEMOS:
                outer.spans.update(spans)
                return value
            found = self._memos[key] = _Memo(value, self._share(spans))
        self._use(key)
        value_: T = found.value
        return value_

    def _share(self, spans: set[int]) -> array[int]:
        """Pack spans; those of many pages of the direct map are the same."""
        if len(spans) > _MOST_SHARED:
            return pack(spans)
        key = tuple(sorted(spans))
        return self._shared.setdefault(key, pack(key))

    def unread(self, address: int) -> None:
        """Forget that one byte was read, within a memo or a part."""
        self._now.spans.discard(address << 12)

    def refresh(self) -> Changes:
        """
        Read all pages again, and forget memos of what changed.

        :return: The pages that changed.
        :raises NotCapturedError: If a page cannot be read any more.
        """
        changes = read_changes(self.memory, self._pages)
        if changes.pages:
            self._pages.update({page: now for page, (_, now) in changes.pages.items()})
            self._forget_memos(changes)
        return changes

    def _forget_memos(self, changes: Changes) -> None:
        verdicts: dict[int, bool] = {}  # Pages of the direct map share their spans.
        stale = []
        for key, memo in self._memos.items():
            known = id(memo.spans)
            if known not in verdicts:
                verdicts[known] = touches(changes, memo.spans)
            if verdicts[known]:
                stale.append(key)
        for key in stale:
            del self._memos[key]
        if stale:
            self._shared.clear()

    def forget_pages(self, needed: Collection[int]) -> None:
        """
        Forget pages that no answer needs any more.

        :param needed: Frame numbers of pages; those of memos are kept, too.
        """
        kept = set(needed)
        for memo in self._memos.values():
            kept.update(it // _BLOCKS for it in span_blocks(memo.spans))
        for page in self._pages.keys() - kept:
            del self._pages[page]

    def _switch(self, reads: _Reads) -> None:
        self._now = reads
        self._record = reads.spans.add
        self._use = reads.memos.add

    def _expanded(self, reads: _Reads) -> set[int]:
        """Return the spans, with those of memos."""
        spans = reads.spans
        for key in reads.memos:
            spans.update(self._memos[key].spans)
        return spans

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
        self._record(address << 12 | count - 1)  # span(), without a call.
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
            if address + count > ADDRESS_END:
                raise NotCapturedError(f"no machine has memory at {address:#x}")
            try:
                self._pages[page] = self.memory.read(page * PAGE_SIZE, PAGE_SIZE)
            except NotCapturedError:
                # A core image may hold a part of a page.
                data = self.memory.read(address, count)
                self._record(address << 12 | count - 1)
                self._reads += 1
                if self._reads >= self._check_at or self._is_late():
                    self._check()
                return data
        except NotCapturedError as error:
            self.misses += 1
            self.last_missing = address
            if self._current is not None and self._current.missing is None:
                self._current.missing = address
            raise FaultError(str(error), address) from None
        if self._is_late():  # Loading may take long.
            self._check_at = 0
        return self.read(address, count, 0, True)

    def _is_late(self) -> bool:
        late = time.monotonic() > self._deadline
        return late or time.thread_time() > self._cpu_deadline

    def _check(self) -> None:
        self._check_at = self._reads + _READS_BETWEEN_CHECKS
        current = self._current
        if current is None:
            return
        budget = current.budget
        if self._reads > budget.reads:
            problem = f"more than {budget.reads} reads"
        elif self._exceeds(current, budget.bytes):
            problem = f"more than {budget.bytes} bytes"
        elif time.thread_time() > self._cpu_deadline:
            problem = f"more than {budget.seconds:g} s of CPU time"
        elif time.monotonic() > self._deadline:
            problem = f"more than {budget.wall:g} s"
        else:
            return
        self._check_at = 0  # Reading fails again if this is caught.
        raise BudgetExceededError(f"the question took {problem}")

    def _exceeds(self, current: Reading, limit: int) -> bool:
        own = self._now.spans if self._now is not self._frame else ()
        count = current.in_parts + len(self._frame.spans) + len(own)
        spans, size = current.counted
        # Of 10,000 tasks, there are a million: blocks are counted only if those that
        # are new may be too many.
        if size + max(count - spans, 0) * (PAGE_SIZE + BLOCK_SIZE) <= limit:
            return False
        parts = (it.spans for it in current.parts.values())
        blocks: set[int] = set().union(
            *map(span_blocks, (self._frame.spans, own, *parts))
        )
        current.counted = count, len(blocks) * BLOCK_SIZE
        return current.counted[1] > limit
