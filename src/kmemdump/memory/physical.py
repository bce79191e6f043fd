# SPDX-License-Identifier: GPL-2.0-or-later
"""Physical memory, which is the ground truth of kmemdump, wherever it is."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from kmemdump.errors import NotCapturedError
from kmemdump.memory.ranges import Range, merge, unit_ranges
from kmemdump.progress import tell_progress

__all__ = [
    "Alias",
    "Extent",
    "FileMemory",
    "JoinedMemory",
    "Memory",
    "PageMemory",
    "flatten",
    "places_of",
]

PAGE_SIZE = 4096
"""
What is read at once, in bytes: the smallest page of every architecture that is
supported. A kernel with larger pages is read in pieces of this size.
"""


class Memory(Protocol):
    """Physical memory that can be read."""

    @property
    def ranges(self) -> Sequence[Range]:
        """What can be read: sorted, merged ranges."""

    def read(self, address: int, size: int) -> bytes:
        """
        Read physical memory.

        :raises NotCapturedError: If any of the bytes cannot be read.
        """

    def close(self) -> None:
        """Release files. Reading afterwards is an error."""


def places_of(
    memory: Memory, mark: bytes, alignment: int, end: int = 1 << 64
) -> Iterator[int]:
    """
    Find the aligned addresses in *memory* where it starts with *mark*.

    :param alignment: In bytes; it divides 4096.
    :param end: Only before this address.
    """
    done, total = 0, sum(item.size for item in memory.ranges)
    for item in memory.ranges:
        start, last = -(-item.start // alignment) * alignment, min(item.end, end)
        while start < last:
            size = min(_SEARCHED_AT_ONCE, last - start)
            tell_progress("searching memory", done + start - item.start, total)
            # So much more that a mark may begin in this piece and end in the next.
            more = min(len(mark) - 1, last - start - size)
            try:
                data = memory.read(start, size + more)
            except NotCapturedError:
                data = b""
            at = data.find(mark)
            while 0 <= at < size:
                if at % alignment == 0:
                    yield start + at
                at = data.find(mark, at + 1)
            start += size
        done += item.size


_SEARCHED_AT_ONCE = 4 << 20


class Extent(NamedTuple):
    """A range of physical memory that is contiguous somewhere else."""

    address: int
    """Physical address in bytes."""
    size: int
    """Size in bytes."""
    offset: int
    """Where it is: offset in a file, or address in a process."""

    def goes_on(self, address: int, offset: int) -> bool:
        """Tell whether another one begins where this one ends."""
        return (address, offset) == (self.address + self.size, self.offset + self.size)


class Alias(NamedTuple):
    """A range of virtual addresses that is contiguous in physical memory."""

    virtual: int
    physical: int
    size: int
    """Size in bytes."""


def flatten(extents: Iterable[Extent]) -> list[Extent]:
    """
    Sort *extents*, cut off what an earlier one has already, and join what goes on.

    Several names of one page in a core image are several PT_LOADs with the same
    physical address; their bytes are the same.
    """
    flat: list[Extent] = []
    end = 0
    for extent in sorted(extents):
        cut = max(end - extent.address, 0)
        if extent.size <= cut:
            continue
        start, offset = extent.address + cut, extent.offset + cut
        end = extent.address + extent.size
        if flat and flat[-1].goes_on(start, offset):
            last = flat.pop()
            flat.append(Extent(last.address, end - last.address, last.offset))
        else:
            flat.append(Extent(start, end - start, offset))
    return flat


class FileMemory:
    """
    Physical memory that lies in a file: guest RAM, a RAM image, a core.

    The file is read and never mapped, so that somebody who truncates it
    meanwhile causes an error and not a SIGBUS.

    :param fd: Open file; owned by this object from here on. ``/proc/PID/mem``
        is such a file, with addresses for offsets.
    :param extents: What is where. Must not overlap.
    :param name: Name of the file, for messages.
    """

    def __init__(self, fd: int, extents: Sequence[Extent], name: str) -> None:
        self._fd = fd
        self._extents = sorted(extents)
        self._starts = [extent.address for extent in self._extents]
        self._name = name
        self.ranges: Sequence[Range] = merge(
            Range(extent.address, extent.size) for extent in self._extents
        )

    def read(self, address: int, size: int) -> bytes:
        pieces: list[bytes] = []
        wanted = size
        while wanted > 0:
            i = bisect_right(self._starts, address) - 1
            extent = self._extents[i] if i >= 0 else None
            skip = address - extent.address if extent else 0
            if extent is None or skip >= extent.size:
                raise NotCapturedError(f"{self._name} does not hold {address:#x}")
            count = min(wanted, extent.size - skip)
            try:
                piece = os.pread(self._fd, count, extent.offset + skip)
            except (OSError, OverflowError) as error:
                raise NotCapturedError(
                    f"{self._name}: cannot read {address:#x}: {error}"
                ) from error
            if not piece:
                raise NotCapturedError(
                    f"{self._name} ends at or before offset {extent.offset + skip:#x}, "
                    f"which should hold {address:#x}"
                )
            pieces.append(piece)
            address += len(piece)
            wanted -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def extents(self) -> Sequence[Extent]:
        """What is where in the file."""
        return self._extents

    def reopen(self) -> int:
        """
        Open the file once more, for reading and writing.

        :return: A file descriptor, which belongs to the caller.
        :raises OSError: If that is not allowed.
        """
        # By way of the open file: its path may be another file's by now.
        return os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PageMemory:
    """
    Physical memory as pages.

    :param pages: Frame numbers and the pages.
    """

    def __init__(self, pages: dict[int, bytes]) -> None:
        self._pages = pages
        self.ranges: Sequence[Range] = unit_ranges(pages, PAGE_SIZE)

    def read(self, address: int, size: int) -> bytes:
        pieces = []
        while size > 0:
            low = address % PAGE_SIZE
            data = self._pages.get(address // PAGE_SIZE)
            if data is None:
                raise NotCapturedError(f"{address:#x} was not read")
            pieces.append(data[low : low + size])
            address, size = address + len(pieces[-1]), size - len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        self._pages = {}


class JoinedMemory:
    """
    Several memories as one; the first that holds something gives it.

    :param memories: Closed together with this.
    """

    def __init__(self, *memories: Memory) -> None:
        self._memories = memories
        self.ranges: Sequence[Range] = merge(
            item for memory in memories for item in memory.ranges
        )

    def read(self, address: int, size: int) -> bytes:
        try:
            return self._read_from_one(address, size)
        except NotCapturedError:
            if size <= PAGE_SIZE and address % PAGE_SIZE + size <= PAGE_SIZE:
                raise
        pieces = []
        while size > 0:  # It may be in several, a part in each.
            count = min(size, PAGE_SIZE - address % PAGE_SIZE)
            pieces.append(self._read_from_one(address, count))
            address, size = address + count, size - count
        return b"".join(pieces)

    def _read_from_one(self, address: int, size: int) -> bytes:
        problem: NotCapturedError | None = None
        for memory in self._memories:
            try:
                return memory.read(address, size)
            except NotCapturedError as error:
                problem = problem or error  # The first's name is the target's.
        raise problem or NotCapturedError(f"nothing holds {address:#x}")

    def close(self) -> None:
        for memory in self._memories:
            memory.close()
