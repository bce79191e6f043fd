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

__all__ = ["PartialRead", "ReadVirtual", "read_partial"]

ReadVirtual = Callable[[int, int], bytes]
"""Reads kernel memory: virtual address and size in bytes."""

_MAX_MISSING = 1 << 14
"""Number of missing or incomplete pages after which reading stops."""


@dataclass(frozen=True, slots=True)
class PartialRead:
    """The part of a memory range that a dump holds."""

    data: bytes
    """The whole range, with zeros where memory is missing."""
    ranges: Sequence[Range]
    """Offsets of the memory that is not missing, sorted and merged."""
    problem: Exception | None = None
    """Why memory is missing, if it is."""

    def part(self, at: int, size: int) -> bytes:
        """
        Return bytes from an offset on.

        :raises NotCapturedError: If one of them is missing.
        """
        i = bisect_right(self.ranges, at, key=lambda item: item.start) - 1
        if i >= 0 and at + size <= self.ranges[i].end:
            return self.data[at : at + size]
        raise NotCapturedError(f"bytes {at:#x}-{at + size:#x} are not all captured")


def read_partial(read: ReadVirtual, address: int, size: int) -> PartialRead:
    """Read the part of a memory range that a dump holds, in most cases all of it."""
    try:
        return PartialRead(read(address, size), [Range(0, size)])
    except (FaultError, NotCapturedError) as error:
        problem = error
    data, found = bytearray(size), []
    for start, part in _parts(read, address, address + size):
        at = start - address
        data[at : at + len(part)] = part
        found.append(Range(at, len(part)))
    return PartialRead(bytes(data), merge(found), problem)


def _parts(read: ReadVirtual, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    missing = 0
    while start < end and missing < _MAX_MISSING:
        size = min(PAGE_SIZE - start % PAGE_SIZE, end - start)
        page = _attempt(read, start, size)
        if page is not None:
            yield start, page
        else:
            missing += 1
            # The dump was cut off within this page, or its next range begins there.
            head = _longest(read, start, size - 1)
            yield start, head
            tail = _longest(read, start + size, size - 1 - len(head), before=True)
            yield start + size - len(tail), tail
        start += size


def _longest(
    read: ReadVirtual, address: int, most: int, *, before: bool = False
) -> bytes:
    """Return the longest readable part at an address, of up to *most* bytes."""
    best = b""
    size = 1  # In most cases, not even one byte can be read.
    while len(best) < most:
        part = _attempt(read, address - size if before else address, size)
        if part is None:
            most = size - 1
        else:
            best = part
        size = (len(best) + most + 1) // 2
    return best


def _attempt(read: ReadVirtual, address: int, size: int) -> bytes | None:
    try:
        return read(address, size)
    except (FaultError, NotCapturedError):
        return None
