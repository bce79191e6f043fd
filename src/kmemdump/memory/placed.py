# SPDX-License-Identifier: GPL-2.0-or-later
"""Physical memory that lies, piece by piece, in a memory with other addresses."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from kmemdump.errors import NotCapturedError
from kmemdump.memory.physical import StoredMemory
from kmemdump.memory.ranges import Extent, Range, merge

__all__ = ["PlacedMemory"]


class PlacedMemory:
    """
    Physical memory in the address space of a process.

    :param host: What is read; stays the caller's.
    :param extents: The physical memory, with its addresses in *host* for offsets. They
        must not overlap.
    """

    def __init__(self, host: StoredMemory, extents: Sequence[Extent]) -> None:
        self.host = host
        self.extents: Sequence[Extent] = sorted(extents)
        self.name = host.name
        self._starts = [extent.address for extent in self.extents]
        self.ranges: Sequence[Range] = merge(
            Range(extent.address, extent.size) for extent in self.extents
        )

    @property
    def outlives_process(self) -> bool:
        """Whether it stays when the process ends whose memory it is."""
        return self.host.outlives_process

    def read(self, address: int, size: int) -> bytes:
        parts: list[bytes] = []
        wanted = size
        while wanted > 0:
            i = bisect_right(self._starts, address) - 1
            extent = self.extents[i] if i >= 0 else None
            skip = address - extent.address if extent else 0
            if extent is None or skip >= extent.size:
                raise NotCapturedError(f"{self.name} does not hold {address:#x}")
            count = min(wanted, extent.size - skip)
            parts.append(self.host.read(extent.offset + skip, count))
            address += count
            wanted -= count
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Do nothing: the host's memory is closed by its owner."""
