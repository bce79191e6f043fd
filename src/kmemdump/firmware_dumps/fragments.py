# SPDX-License-Identifier: GPL-2.0-or-later
"""Pieces of a dump, wherever their bytes are, and the memory that they make."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from kmemdump.errors import NotCapturedError
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Range, merge

__all__ = [
    "FileSet",
    "FileStore",
    "MemoryStore",
    "Piece",
    "PlacedMemory",
    "Placement",
    "Store",
]

_MAX_OPEN = 256
"""As many as Qualcomm has regions, and more; processes mostly may have 1024."""


class Store(Protocol):
    """Where the bytes of a piece are."""

    @property
    def size(self) -> int:
        """Number of bytes that are there."""

    def read(self, offset: int, count: int) -> bytes:
        """
        Read; returns less at the end.

        :raises NotCapturedError: If that fails.
        """


class FileSet:
    """Files that are open for reading, the most recently read ones at a time."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, int] = OrderedDict()

    def read(self, path: str, offset: int, count: int) -> bytes:
        """
        Read from a file; returns less at its end.

        :raises NotCapturedError: If that fails.
        """
        try:
            return os.pread(self._open(path), count, offset)
        except (OSError, OverflowError, ValueError) as error:
            # ValueError: a list has names that no file can have.
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


class FileStore(NamedTuple):
    """Bytes in a file."""

    files: FileSet
    path: str
    offset: int
    size: int

    def read(self, offset: int, count: int) -> bytes:
        count = max(min(count, self.size - offset), 0)
        return self.files.read(self.path, self.offset + offset, count)


class MemoryStore(NamedTuple):
    """Bytes in the memory of a target."""

    memory: Memory
    address: int
    size: int

    def read(self, offset: int, count: int) -> bytes:
        count = max(min(count, self.size - offset), 0)
        return self.memory.read(self.address + offset, count) if count else b""


class Piece(NamedTuple):
    """What firmware made of one region."""

    name: str
    """Of the region in the table, as far as it is known: ``Kprintk_r``."""
    store: Store
    address: int | None = None
    """Physical address in bytes, if the source tells."""
    size: int | None = None
    """Size in bytes that it should have, if the source tells."""


class Placement(NamedTuple):
    """Physical memory that is in a store."""

    address: int
    size: int
    store: Store
    offset: int
    """In the store, in bytes."""


class PlacedMemory:
    """
    Physical memory out of many stores.

    :param placements: What is where; must not overlap.
    :param files: Closed together with this.
    """

    def __init__(
        self, placements: Iterable[Placement], name: str, files: FileSet | None = None
    ) -> None:
        self.placements: Sequence[Placement] = sorted(
            placements, key=lambda it: it.address
        )
        self._starts = [item.address for item in self.placements]
        self._name = name
        self._files = files
        self.ranges: Sequence[Range] = merge(
            Range(item.address, item.size) for item in self.placements
        )

    def read(self, address: int, size: int) -> bytes:
        pieces: list[bytes] = []
        while size > 0:
            i = bisect_right(self._starts, address) - 1
            item = self.placements[i] if i >= 0 else None
            skip = address - item.address if item else 0
            if item is None or skip >= item.size:
                raise NotCapturedError(f"{self._name} does not hold {address:#x}")
            count = min(size, item.size - skip)
            piece = item.store.read(item.offset + skip, count)
            if not piece:
                raise NotCapturedError(
                    f"{self._name} has become shorter: {address:#x} is gone"
                )
            pieces.append(piece)
            address, size = address + len(piece), size - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        if self._files is not None:
            self._files.close()
