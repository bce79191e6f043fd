# SPDX-License-Identifier: GPL-2.0-or-later
"""
The bitmap of the page frames in a dump, read piece by piece.

It has a bit for each page of the address space below the highest address of RAM, not
for each page of RAM: on an Arm machine whose second node starts at 64 TiB, 2 GiB, of
which nearly all are zeros.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from functools import lru_cache

__all__ = ["PageBitmap"]

_BLOCK = 4096
"""Bytes that are counted together, and read for an index."""
_PIECE = 256 * _BLOCK
_EMPTY = bytes(_PIECE)
_CACHED_BLOCKS = 256


class PageBitmap:
    """
    A set of page frames, with the number of members below each.

    :param read: Reads (offset, size) of the bitmap; less at its end.
    :param frames: How many frames it has; bits after them do not count.
    :param next_data: Returns the first offset from one on that may not be zeros.
    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        frames: int,
        next_data: Callable[[int], int] = int,
    ) -> None:
        self._read = read
        self._frames = frames
        self._bytes = (frames + 7) // 8
        self._block = lru_cache(_CACHED_BLOCKS)(self._read_block)
        self.counts: array[int] = array("Q", [0])
        """Members below the first frame of each block."""
        for start in range(0, self._bytes, _PIECE):
            if next_data(start) >= start + _PIECE:
                self._count(_EMPTY[: self._bytes - start])
            else:
                self._count(self._read_part(start, _PIECE))

    def __len__(self) -> int:
        return self.counts[-1]

    def index(self, frame: int) -> int | None:
        """Return how many members are below *frame*; None if it is not a member."""
        if not 0 <= frame < self._frames:
            return None
        number, byte = divmod(frame >> 3, _BLOCK)
        if self.counts[number] == self.counts[number + 1]:
            return None
        block, bit = self._block(number), frame & 7
        if byte >= len(block) or not block[byte] >> bit & 1:
            return None
        last: int = block[byte] & ((1 << bit) - 1)
        within = int.from_bytes(block[:byte], "little").bit_count() + last.bit_count()
        return self.counts[number] + within

    def runs(self) -> Iterator[tuple[int, int]]:
        """Iterate over the (first, end) of runs of members."""
        first = -1  # Start of the open run.
        for start in range(0, self._bytes, _PIECE):
            block = start // _BLOCK
            after = min(block + _PIECE // _BLOCK, len(self.counts) - 1)
            if self.counts[block] == self.counts[after]:
                if first >= 0:
                    yield first, start * 8
                    first = -1
                continue
            piece = self._read_part(start, _PIECE)
            for match in re.finditer(rb"\x00+|\xff+|[^\x00\xff]", piece):
                value = piece[match.start()]
                frame = (start + match.start()) * 8
                if value in (0, 0xFF):
                    if value and first < 0:
                        first = frame
                    elif not value and first >= 0:
                        yield first, frame
                        first = -1
                    continue
                for bit in range(8):
                    if value >> bit & 1:
                        if first < 0:
                            first = frame + bit
                    elif first >= 0:
                        yield first, frame + bit
                        first = -1
        if first >= 0:
            yield first, self._frames

    def _read_block(self, number: int) -> bytes:
        return self._read_part(number * _BLOCK, _BLOCK)

    def _read_part(self, start: int, size: int) -> bytes:
        part = self._read(start, min(size, self._bytes - start))
        if self._frames & 7 and start + len(part) == self._bytes:
            last = part[-1] & ((1 << (self._frames & 7)) - 1)
            part = part[:-1] + bytes([last])
        return part

    def _count(self, piece: bytes) -> None:
        below = self.counts[-1]
        if _EMPTY.startswith(piece):
            self.counts.extend([below] * -(-len(piece) // _BLOCK))
            return
        for start in range(0, len(piece), _BLOCK):
            block = int.from_bytes(piece[start : start + _BLOCK], "little")
            below += block.bit_count()
            self.counts.append(below)
