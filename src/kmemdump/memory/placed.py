# SPDX-License-Identifier: GPL-2.0-or-later
"""Physical memory that lies, piece by piece, in a memory with other addresses."""

from __future__ import annotations

from collections.abc import Sequence

from kmemdump.memory.physical import ExtentMemory, StoredMemory
from kmemdump.memory.ranges import Extent

__all__ = ["PlacedMemory"]


class PlacedMemory(ExtentMemory):
    """
    Physical memory in the address space of a process.

    :param host: What is read; stays the caller's.
    :param extents: The physical memory, with its addresses in *host* for offsets. They
        must not overlap.
    """

    def __init__(self, host: StoredMemory, extents: Sequence[Extent]) -> None:
        super().__init__(extents, host.name)
        self.host = host

    @property
    def outlives_process(self) -> bool:
        """Whether it stays when the process ends whose memory it is."""
        return self.host.outlives_process

    def _read_at(self, extent: Extent, skip: int, count: int) -> bytes:
        return self.host.read(extent.offset + skip, count)

    def close(self) -> None:
        """Do nothing: the host's memory is closed by its owner."""
