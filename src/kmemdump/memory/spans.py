# SPDX-License-Identifier: GPL-2.0-or-later
"""
Reads of physical memory, each as one number, and whether what they read has changed.

A *span* is a read within a page: its address, shifted left by 12, and its size in
bytes, less one. Physical addresses have at most 52 bits on x86_64 and aarch64, so that
it fits into 64 bits, and thousands of them into an array.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field

from kmemdump.memory.physical import PAGE_SIZE

__all__ = [
    "ADDRESS_END",
    "BLOCK_SIZE",
    "Changes",
    "Spans",
    "pack",
    "span",
    "span_blocks",
    "touches",
]

BLOCK_SIZE = 512
"""
Granularity of recording in bytes. Structures that are read together rarely fill a page:
recording pages would mark twice as much.
"""
ADDRESS_END = 1 << 52
"""End of the physical addresses of a span."""
_SHIFT = 12
_LESS_ONE = (1 << _SHIFT) - 1
_IN_BLOCK = _SHIFT + BLOCK_SIZE.bit_length() - 1
_IN_PAGE = _SHIFT + PAGE_SIZE.bit_length() - 1

Spans = Collection[int]
"""Distinct spans, as a set or an array."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed of the pages that were read."""

    pages: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict)
    """Frame number to the bytes before and now."""
    blocks: Set[int] = frozenset()
    """The blocks in these pages that changed."""


def span(address: int, size: int) -> int:
    """Return a read within a page as a number."""
    return address << _SHIFT | size - 1


def pack(numbers: Iterable[int]) -> array[int]:
    """Return spans or blocks, sorted, in eight bytes each; a set takes seventy."""
    return array("Q", sorted(numbers))


def span_blocks(spans: Spans) -> set[int]:
    """Return the blocks, as physical addresses in units of :data:`BLOCK_SIZE`."""
    blocks = {it >> _IN_BLOCK for it in spans}
    blocks.update(((it >> _SHIFT) + (it & _LESS_ONE)) // BLOCK_SIZE for it in spans)
    for it in spans:
        if it & _LESS_ONE > BLOCK_SIZE:
            first = it >> _IN_BLOCK
            last = ((it >> _SHIFT) + (it & _LESS_ONE)) // BLOCK_SIZE
            blocks.update(range(first + 1, last))
    return blocks


def touches(changes: Changes, spans: Spans) -> bool:
    """Return whether any byte of *spans* changed."""
    pages = changes.pages
    for it in spans:
        found = pages.get(it >> _IN_PAGE)
        if found is not None:
            before, now = found
            low = it >> _SHIFT & PAGE_SIZE - 1
            high = low + (it & _LESS_ONE) + 1
            if before[low:high] != now[low:high]:
                return True
    return False
