# SPDX-License-Identifier: GPL-2.0-or-later
"""The fragments of a dump, from any source, and their memory."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from kmemdump.errors import NotCapturedError
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Range, intersect, merge
from kmemdump.text import printable

__all__ = [
    "Contents",
    "FileContents",
    "Fragment",
    "FragmentExtent",
    "FragmentMemory",
    "MemoryContents",
    "OpenFiles",
    "held_fragments",
    "label_of",
    "read_start",
]

_MAX_OPEN = 256
"""More than the regions of a Qualcomm device; most processes may open 1024 files."""


def label_of(file_name: str) -> str:
    """Return the name of a region from the name of its file, ``md_Klog.BIN``."""
    label = re.sub(r"\.bin$", "", file_name, flags=re.IGNORECASE)
    return printable(label.removeprefix("md_"))


class Contents(Protocol):
    """The bytes of a fragment."""

    @property
    def size(self) -> int:
        """Number of bytes that are there."""

    def read(self, offset: int, count: int) -> bytes:
        """
        Return *count* bytes, or fewer at the end.

        :raises NotCapturedError: If they cannot be read.
        """


class OpenFiles:
    """Reads files, and keeps those open that were read last."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, int] = OrderedDict()

    def read(self, path: str, offset: int, count: int) -> bytes:
        """
        Return *count* bytes of a file, or fewer at its end.

        :raises NotCapturedError: If they cannot be read.
        """
        try:
            return os.pread(self._open(path), count, offset)
        except (OSError, OverflowError, ValueError) as error:
            # ValueError: a list may have a name that no file can have.
            raise NotCapturedError(f"{path}+{offset:#x}: {error}") from error

    def _open(self, path: str) -> int:
        fd = self._files.get(path)
        if fd is None:
            if len(self._files) >= _MAX_OPEN:
                os.close(self._files.popitem(last=False)[1])
            # O_NONBLOCK: opening a FIFO must not wait for its writer.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            self._files[path] = fd
        else:
            self._files.move_to_end(path)
        return fd

    def close(self) -> None:
        """Close all files."""
        while self._files:
            os.close(self._files.popitem()[1])


class FileContents(NamedTuple):
    """Bytes in a file."""

    files: OpenFiles
    path: str
    offset: int
    size: int

    def read(self, offset: int, count: int) -> bytes:
        count = max(min(count, self.size - offset), 0)
        return self.files.read(self.path, self.offset + offset, count)


class MemoryContents(NamedTuple):
    """Bytes in the memory of a target."""

    memory: Memory
    address: int
    size: int

    def read(self, offset: int, count: int) -> bytes:
        count = max(min(count, self.size - offset), 0)
        return self.memory.read(self.address + offset, count) if count else b""


def read_start(contents: Contents, count: int) -> bytes:
    """Return the first bytes, as many as there are; none if they cannot be read."""
    try:
        return contents.read(0, min(count, contents.size))
    except NotCapturedError:
        return b""


class Fragment(NamedTuple):
    """A part of a region that was found."""

    name: str
    """Name in the firmware's table, as far as it is known: ``Kprintk_r``."""
    contents: Contents
    address: int | None = None
    """Physical address in bytes, if it is known."""
    size: int | None = None
    """Size in bytes that it should have, if it is known."""


def held_fragments(memory: Memory, name: str, whole: Range) -> list[Fragment]:
    """Return the parts of a region in a machine's memory, which may have holes."""
    return [
        Fragment(
            name,
            MemoryContents(memory, held.start, held.size),
            held.start,
            whole.size if held.start == whole.start else held.size,
        )
        for held in intersect([whole], memory.ranges)
    ]


class FragmentExtent(NamedTuple):
    """A range of physical memory, and its place in a fragment's contents."""

    address: int
    size: int
    contents: Contents
    offset: int
    """Offset in *contents* in bytes."""


class FragmentMemory:
    """
    The physical memory that fragments hold.

    :param extents: Must not overlap.
    :param name: Name of the dump, for messages.
    :param files: Closed together with this.
    """

    def __init__(
        self,
        extents: Iterable[FragmentExtent],
        name: str,
        files: OpenFiles | None = None,
    ) -> None:
        self.extents: Sequence[FragmentExtent] = sorted(
            extents, key=lambda it: it.address
        )
        self._starts = [item.address for item in self.extents]
        self._name = name
        self._files = files
        self.ranges: Sequence[Range] = merge(
            Range(item.address, item.size) for item in self.extents
        )

    def read(self, address: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            i = bisect_right(self._starts, address) - 1
            item = self.extents[i] if i >= 0 else None
            skip = address - item.address if item else 0
            if item is None or skip >= item.size:
                raise NotCapturedError(f"{self._name} does not hold {address:#x}")
            count = min(size, item.size - skip)
            part = item.contents.read(item.offset + skip, count)
            if not part:
                raise NotCapturedError(
                    f"{self._name} has become shorter: {address:#x} is gone"
                )
            parts.append(part)
            address, size = address + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        if self._files is not None:
            self._files.close()
