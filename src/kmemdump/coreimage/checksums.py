# SPDX-License-Identifier: GPL-2.0-or-later
"""Checksums of regions, made while their memory is copied."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from kmemdump.memory.ranges import Range, Region

__all__ = ["Checksum", "RunningChecksums"]


@dataclass(slots=True)
class Checksum:
    """How much of a region is in the core image, in bytes, and its checksum."""

    region: Region
    captured: int = 0
    crc32: int = 0


class RunningChecksums:
    """
    Computes the checksums of regions while their memory is copied.

    Not in a thread: handing over the data takes longer than the checksum.
    """

    def __init__(self, checksums: Iterable[Checksum]) -> None:
        self._waiting = sorted(
            checksums, key=lambda item: item.region.address, reverse=True
        )
        self._active: list[Checksum] = []

    def add(self, piece: Range, data: bytes) -> None:
        """Add the next part of memory, in ascending order."""
        while self._waiting and self._waiting[-1].region.address < piece.end:
            self._active.append(self._waiting.pop())
        for item in self._active:
            _add(item, piece.start, data)
        self._active = [it for it in self._active if it.region.range.end > piece.end]


def _add(checksum: Checksum, address: int, data: bytes) -> None:
    wanted = checksum.region.range
    first = max(wanted.start - address, 0)
    last = min(wanted.end - address, len(data))
    if first < last:
        piece = memoryview(data)[first:last]
        checksum.crc32 = zlib.crc32(piece, checksum.crc32)
        checksum.captured += len(piece)
