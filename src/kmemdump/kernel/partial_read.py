# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading kernel memory of which a dump may hold only a part."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from drgn import FaultError

from kmemdump.errors import NotCapturedError
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import Range, merge

__all__ = ["Held", "ReadVirtual", "read_held"]

ReadVirtual = Callable[[int, int], bytes]
"""Reads kernel memory: virtual address and size in bytes."""

_MAX_TORN = 1 << 14
"""Pages that are not there, or not whole, after which nothing more is looked for."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a dump holds of a range of memory."""

    data: bytes
    """All of it, with zeros where there is nothing."""
    ranges: Sequence[Range]
    """What is there: offsets, sorted and merged."""
    problem: Exception | None = None
    """Why not all of it is there."""

    def part(self, at: int, size: int) -> bytes:
        """
        Return some of the bytes.

        :raises NotCapturedError: If one of them is not there.
        """
        i = bisect_right(self.ranges, at, key=lambda item: item.start) - 1
        if i >= 0 and at + size <= self.ranges[i].end:
            return self.data[at : at + size]
        raise NotCapturedError(f"not all of {at:#x}-{at + size:#x} is there")


def read_held(read: ReadVirtual, address: int, size: int) -> Held:
    """Read what is there of a range of memory: whole, mostly, and at once."""
    try:
        return Held(read(address, size), [Range(0, size)])
    except (FaultError, NotCapturedError) as error:
        problem = error
    data, found = bytearray(size), []
    for start, piece in _pieces(read, address, address + size):
        at = start - address
        data[at : at + len(piece)] = piece
        found.append(Range(at, len(piece)))
    return Held(bytes(data), merge(found), problem)


def _pieces(read: ReadVirtual, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    torn = 0
    while start < end and torn < _MAX_TORN:
        size = min(PAGE_SIZE - start % PAGE_SIZE, end - start)
        piece = _attempt(read, start, size)
        if piece is not None:
            yield start, piece
        else:
            torn += 1
            # A file was cut in the middle of this page, or the next one begins there.
            head = _longest(read, start, size - 1)
            yield start, head
            tail = _longest(read, start + size, size - 1 - len(head), before=True)
            yield start + size - len(tail), tail
        start += size


def _longest(
    read: ReadVirtual, address: int, most: int, *, before: bool = False
) -> bytes:
    """Return the longest piece that is there at an address, of up to *most* bytes."""
    best = b""
    size = 1  # Mostly, not even this is there.
    while len(best) < most:
        piece = _attempt(read, address - size if before else address, size)
        if piece is None:
            most = size - 1
        else:
            best = piece
        size = (len(best) + most + 1) // 2
    return best


def _attempt(read: ReadVirtual, address: int, size: int) -> bytes | None:
    try:
        return read(address, size)
    except (FaultError, NotCapturedError):
        return None
