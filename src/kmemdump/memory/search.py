# SPDX-License-Identifier: GPL-2.0-or-later
"""Search physical memory for bytes."""

from __future__ import annotations

from collections.abc import Iterator

from kmemdump.errors import NotCapturedError
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import ADDRESS_SPACE
from kmemdump.progress import report_progress

__all__ = ["find_bytes"]

_CHUNK = 4 << 20
"""Bytes that are searched at once."""
_SMALL_CHUNK = 64 << 10
"""Step past memory that cannot be read."""
_BLOCK = 16 << 10
_ZEROS = bytes(_BLOCK)


def find_bytes(
    memory: Memory,
    wanted: bytes,
    alignment: int,
    end: int = ADDRESS_SPACE,
    *,
    highest_first: bool = False,
    activity: str = "searching memory",
) -> Iterator[int]:
    """
    Yield the aligned addresses in *memory* at which bytes are found.

    Memory that cannot be read is skipped.

    :param alignment: In bytes.
    :param end: Only addresses before this one are searched.
    :param highest_first: Whether the highest range is searched first.
    :param activity: Name of the work in progress reports.
    """
    done, total = 0, sum(item.size for item in memory.ranges)
    for item in reversed(memory.ranges) if highest_first else memory.ranges:
        start, last = item.start, min(item.end, end)
        tail, chunk = b"", _CHUNK
        while start < last:
            size = min(chunk, last - start)
            report_progress(activity, done + start - item.start, total)
            try:
                data = tail + memory.read(start, size)
            except NotCapturedError:
                if chunk == _SMALL_CHUNK:
                    tail = b""
                    start += size
                chunk = _SMALL_CHUNK
                continue
            chunk = min(2 * chunk, _CHUNK)
            first = start - len(tail)
            for begin, stop in _parts(data, wanted):
                at = data.find(wanted, begin, stop)
                while at >= 0:
                    if (first + at) % alignment == 0:
                        yield first + at
                    at = data.find(wanted, at + 1, stop)
            # A match may begin in this part and end in the next.
            tail = data[len(data) - len(wanted) + 1 :]
            start += size
        done += item.size


def _parts(data: bytes, wanted: bytes) -> Iterator[tuple[int, int]]:
    """
    Yield the parts of *data* that may hold *wanted*: those that are not all zeros.

    Much of RAM was never used, and bytes with zeros in them are sought slowly in it.
    """
    margin = len(wanted)
    if 2 * margin > _BLOCK or not any(wanted):
        yield 0, len(data)
        return
    start: int | None = None
    for at in range(0, len(data), _BLOCK):
        if data.startswith(_ZEROS, at):
            if start is not None:
                yield start, at + margin
                start = None
        elif start is None:
            start = max(at - margin, 0)
    if start is not None:
        yield start, len(data)
