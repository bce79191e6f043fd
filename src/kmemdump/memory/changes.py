# SPDX-License-Identifier: GPL-2.0-or-later
"""Read pages of memory again, and compare them with what they were."""

from __future__ import annotations

from collections.abc import Mapping

from kmemdump.memory.physical import PAGE_SIZE, Memory
from kmemdump.memory.ranges import unit_ranges
from kmemdump.memory.spans import BLOCK_SIZE, Changes

__all__ = ["read_changes"]

_BLOCKS = PAGE_SIZE // BLOCK_SIZE
_MAX_RUN = 64 * PAGE_SIZE
"""
Bytes that are read at once: enough that a read costs what copying costs, and so few
that they stay in the CPU's cache until they are compared.
"""


def read_changes(memory: Memory, pages: Mapping[int, bytes]) -> Changes:
    """
    Return the pages that are not what they were, with their bytes before and now.

    :param pages: Frame number to page.
    :raises NotCapturedError: If one of them cannot be read any more.
    """
    # bytes are compared by memcmp(), at gigabytes per second; a view is compared
    # element by element.
    changed: dict[int, tuple[bytes, bytes]] = {}
    for item in unit_ranges(pages, PAGE_SIZE):
        for start in range(item.start, item.end, _MAX_RUN):
            size = min(_MAX_RUN, item.end - start)
            data = memory.read(start, size)
            first = start // PAGE_SIZE
            for at in range(0, size, PAGE_SIZE):
                page = first + at // PAGE_SIZE
                now = data[at : at + PAGE_SIZE]
                before = pages[page]
                if now != before:
                    changed[page] = before, now
    blocks = {
        page * _BLOCKS + at // BLOCK_SIZE
        for page, (before, now) in changed.items()
        for at in range(0, PAGE_SIZE, BLOCK_SIZE)
        if before[at : at + BLOCK_SIZE] != now[at : at + BLOCK_SIZE]
    }
    return Changes(changed, blocks)
