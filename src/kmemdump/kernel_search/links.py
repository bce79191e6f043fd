# SPDX-License-Identifier: GPL-2.0-or-later
"""
Links of a kernel's lists, which prove where memory is.

A ``struct list_head`` points to the next one, which points back. So a pointer in memory
that is known says which word is where in memory that is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kmemdump.errors import NotCapturedError
from kmemdump.kernel_search.kallsyms import PartOfMemory
from kmemdump.memory.physical import PAGE_SIZE, Memory
from kmemdump.memory.ranges import ADDRESS_SPACE, Alias, Extent, Range, subtract
from kmemdump.memory.search import find_bytes

__all__ = ["Link", "count_true", "find_links", "free_blocks", "place_linked"]

_WORD = 8
_SECTION = 128 << 20
"""Links to memory as near as this belong together; hot-added memory is a multiple."""
_MAX_SECTIONS = 16
_LEAST_BLOCK = 64 << 20
"""Bytes: Linux takes memory over in blocks of 128 MiB, and so do monitors."""
_LEAST = 4
"""Least links that must be true to believe a place."""
_SOUGHT = 32
"""Links of a section that are sought."""
_MAX_HITS = 64
_COMPARED = 256


class Link(NamedTuple):
    """A word that must be somewhere if a pointer to it is one of a list."""

    physical: int
    value: int
    likely: bool
    """Whether another pointer follows the pointer, as in a ``struct list_head``."""


def find_links(memory: Memory, direct: Alias, pages: int) -> Iterator[Link]:
    """
    Yield what may be links, from pages that are spread over a memory.

    :param direct: The kernel's direct map.
    :param pages: How many pages are looked at.
    """
    low, high = direct.virtual, direct.virtual + direct.size
    move = direct.virtual - direct.physical
    for page in _spread(memory.ranges, pages):
        try:
            words = memoryview(memory.read(page, PAGE_SIZE)).cast("Q").tolist()
        except NotCapturedError:
            continue
        for number, word in enumerate(words):
            if low <= word < high and word % _WORD == 0:
                likely = low <= words[(number + 1) % len(words)] < ADDRESS_SPACE
                address = page + number * _WORD + move
                yield Link(word - move + _WORD, address, likely)


def _spread(ranges: Sequence[Range], count: int) -> Iterator[int]:
    whole = sum(item.size for item in ranges)
    step = max(whole // max(count, 1) & -PAGE_SIZE, PAGE_SIZE)
    for item in ranges:
        yield from range(-(-item.start // PAGE_SIZE) * PAGE_SIZE, item.end, step)


def count_true(links: Sequence[Link], memory: Memory) -> int:
    """Return how many links lead to the word that they say."""
    return sum(_holds(memory, link.physical, link.value) for link in links)


def place_linked(
    host: Memory, extents: Sequence[Extent], links: Sequence[Link]
) -> list[Extent]:
    """
    Find memory that links lead to and *extents* lack.

    :param host: Where it may be, by other addresses.
    :param extents: Physical memory that is known, with addresses in *host* for offsets.
    :return: Further extents; they overlap neither each other nor *extents*.
    """
    placed: list[Extent] = []
    groups = defaultdict(list)
    for link in links:
        groups[link.physical // _SECTION].append(link)
    for group in sorted(groups.values(), key=len, reverse=True)[:_MAX_SECTIONS]:
        known = [Range(it.address, it.size) for it in (*extents, *placed)]
        left = [it for it in group if not _within(known, it.physical)]
        if len(left) < _LEAST:
            continue
        left.sort(key=lambda it: not it.likely)
        used = [Range(it.offset, it.size) for it in (*extents, *placed)]
        for block in free_blocks(host, used):
            shift = _find_shift(host, block, left)
            if shift is not None:
                whole = Range(block.start - shift, block.size)
                rest = subtract([whole], [*known, Range(-(1 << 64), 1 << 64)])
                placed += [Extent(it.start, it.size, it.start + shift) for it in rest]
                break
    return placed


def free_blocks(host: Memory, used: Sequence[Range]) -> list[Range]:
    """Return what *host* has besides, and may be memory of a guest; largest first."""
    free = (it for it in subtract(host.ranges, used) if it.size >= _LEAST_BLOCK)
    return sorted(free, key=lambda it: -it.size)


def _find_shift(host: Memory, block: Range, links: Sequence[Link]) -> int | None:
    """Return address in *host* minus physical address, if links prove it."""
    part = PartOfMemory(host, block)
    for link in links[:_SOUGHT]:
        hits = 0
        for at in find_bytes(part, link.value.to_bytes(_WORD, "little"), _WORD):
            hits += 1
            if hits > _MAX_HITS:
                break
            shift = at - link.physical
            if shift % PAGE_SIZE:
                continue
            compared = links[:_COMPARED]
            true = sum(_holds(host, it.physical + shift, it.value) for it in compared)
            if true >= _LEAST:
                return shift
    return None


def _holds(memory: Memory, address: int, value: int) -> bool:
    try:
        return memory.read(address, _WORD) == value.to_bytes(_WORD, "little")
    except NotCapturedError:
        return False


def _within(ranges: Sequence[Range], address: int) -> bool:
    return any(item.start <= address < item.end for item in ranges)
