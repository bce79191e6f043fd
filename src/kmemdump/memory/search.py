# SPDX-License-Identifier: GPL-2.0-or-later
"""Search physical memory for bytes."""

from __future__ import annotations

from collections.abc import Iterator

from kmemdump.errors import NotCapturedError
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import ADDRESS_SPACE, round_up
from kmemdump.progress import report_progress

__all__ = ["find_bytes"]

_SEARCHED_AT_ONCE = 4 << 20


def find_bytes(
    memory: Memory, wanted: bytes, alignment: int, end: int = ADDRESS_SPACE
) -> Iterator[int]:
    """
    Yield the aligned addresses in *memory* at which bytes are found.

    :param alignment: In bytes; it divides 4096.
    :param end: Only addresses before this one are searched.
    """
    done, total = 0, sum(item.size for item in memory.ranges)
    for item in memory.ranges:
        start, last = round_up(item.start, alignment), min(item.end, end)
        while start < last:
            size = min(_SEARCHED_AT_ONCE, last - start)
            report_progress("searching memory", done + start - item.start, total)
            # What is wanted may begin in this part and end in the next.
            more = min(len(wanted) - 1, last - start - size)
            try:
                data = memory.read(start, size + more)
            except NotCapturedError:
                data = b""
            at = data.find(wanted)
            while 0 <= at < size:
                if at % alignment == 0:
                    yield start + at
                at = data.find(wanted, at + 1)
            start += size
        done += item.size
