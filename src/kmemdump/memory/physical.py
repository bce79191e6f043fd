# SPDX-License-Identifier: GPL-2.0-or-later
"""Physical memory, and the sources it is read from."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol

from kmemdump.errors import NotCapturedError
from kmemdump.memory.ranges import Extent, Range, merge, unit_ranges

__all__ = [
    "PAGE_SIZE",
    "ExtentMemory",
    "FileMemory",
    "JoinedFiles",
    "JoinedMemory",
    "Memory",
    "PageMemory",
    "StoredMemory",
    "WritableMemory",
]

PAGE_SIZE = 4096
"""
Bytes that are read at once: the smallest page size of every supported architecture. A
kernel with larger pages is read in parts of this size.
"""


class Memory(Protocol):
    """Physical memory that can be read."""

    @property
    def ranges(self) -> Sequence[Range]:
        """The memory that can be read, sorted and merged."""

    def read(self, address: int, size: int) -> bytes:
        """
        Read physical memory.

        :raises NotCapturedError: If any of the bytes cannot be read.
        """

    def close(self) -> None:
        """Release files. Reading afterwards is an error."""


class StoredMemory(Memory, Protocol):
    """Physical memory of a VM, as its host keeps it."""

    @property
    def name(self) -> str:
        """Name of the file or process, for messages."""

    @property
    def outlives_process(self) -> bool:
        """Whether it stays when the process ends whose memory it is."""


class WritableMemory(Memory, Protocol):
    """Physical memory that can be written too, by backends that keep a table in it."""

    def write(self, address: int, data: bytes) -> None:
        """
        Write physical memory in order: no write is seen before an earlier one.

        The machine may die between two writes, or within one. An aligned word of 4 or 8
        bytes is written as a whole or not at all.

        :raises KmemdumpError: If any of the bytes cannot be written.
        """


class ExtentMemory(ABC):
    """
    Physical memory that lies, extent by extent, where it has other addresses.

    :param extents: The memory, with its places there. They must not overlap.
    :param name: Name of the place, for messages.
    """

    def __init__(self, extents: Sequence[Extent], name: str) -> None:
        self.extents: Sequence[Extent] = sorted(extents)
        """The memory, with its places."""
        self.name = name
        self._starts = [extent.address for extent in self.extents]
        self.ranges: Sequence[Range] = merge(
            Range(extent.address, extent.size) for extent in self.extents
        )

    def read(self, address: int, size: int) -> bytes:
        parts: list[bytes] = []
        wanted = size
        while wanted > 0:
            i = bisect_right(self._starts, address) - 1
            extent = self.extents[i] if i >= 0 else None
            skip = address - extent.address if extent else 0
            if extent is None or skip >= extent.size:
                raise NotCapturedError(f"{self.name} does not hold {address:#x}")
            part = self._read_at(extent, skip, min(wanted, extent.size - skip))
            parts.append(part)
            address += len(part)
            wanted -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @abstractmethod
    def _read_at(self, extent: Extent, skip: int, count: int) -> bytes:
        """Return at least one of *count* bytes of an extent, behind the first ones."""


class FileMemory(ExtentMemory):
    """
    Physical memory in a file: a VM's RAM, a RAM image, a core.

    The file is read and never mapped: truncating it meanwhile causes an error, not a
    SIGBUS.

    :param fd: Open file; owned by this object from here on. ``/proc/PID/mem``
        is such a file, with addresses for offsets.
    :param extents: The memory in the file. They must not overlap.
    :param name: Name of the file, for messages.
    """

    def __init__(self, fd: int, extents: Sequence[Extent], name: str) -> None:
        super().__init__(extents, name)
        self._fd = fd

    @property
    def outlives_process(self) -> bool:
        """Whether it stays when the process ends whose memory it is."""
        # A /proc/PID/mem has no size.
        return os.fstat(self._fd).st_size > 0

    def _read_at(self, extent: Extent, skip: int, count: int) -> bytes:
        try:
            part = os.pread(self._fd, count, extent.offset + skip)
        except (OSError, OverflowError) as error:
            address = extent.address + skip
            raise NotCapturedError(
                f"{self.name}: cannot read {address:#x}: {error}"
            ) from error
        if not part:
            address = extent.address + skip
            raise NotCapturedError(
                f"{self.name} ends at or before offset {extent.offset + skip:#x}, "
                f"which should hold {address:#x}"
            )
        return part

    def reopen(self) -> int:
        """
        Open the file once more, for reading and writing.

        :return: A file descriptor, which belongs to the caller.
        :raises OSError: If that is not allowed.
        """
        # Through the open file: its path may belong to another file now.
        return os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PageMemory:
    """
    Physical memory as pages.

    :param pages: Frame number to page.
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
    Several memories as one; the first that holds an address is read.

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
        while size > 0:  # Several may hold a part each.
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
                problem = problem or error  # The first error names the target.
        raise problem or NotCapturedError(f"nothing holds {address:#x}")

    def close(self) -> None:
        for memory in self._memories:
            memory.close()


class JoinedFiles(JoinedMemory):
    """
    Physical memory in several files.

    :param files: Closed together with this.
    """

    def __init__(self, *files: StoredMemory) -> None:
        super().__init__(*files)
        self.name = ", ".join(file.name for file in files)
        self.outlives_process = all(file.outlives_process for file in files)
