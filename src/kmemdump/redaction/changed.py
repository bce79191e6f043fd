# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory, parts of which were changed."""

from __future__ import annotations

from collections.abc import Sequence

from kmemdump.memory.physical import PAGE_SIZE, Memory
from kmemdump.memory.ranges import Range

__all__ = ["ChangedMemory"]


class ChangedMemory:
    """
    A memory, parts of which are other bytes.

    :param memory: Not closed with this.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._pages: dict[int, dict[int, bytes]] = {}

    @property
    def ranges(self) -> Sequence[Range]:
        return self._memory.ranges

    def change(self, start: int, data: bytes) -> None:
        """Let a part of a page have other bytes."""
        self._pages.setdefault(start // PAGE_SIZE, {})[start] = data

    def read(self, address: int, size: int) -> bytes:
        data = self._memory.read(address, size)
        first, last = address // PAGE_SIZE, (address + size - 1) // PAGE_SIZE
        changed: bytearray | None = None
        for page in range(first, last + 1):
            for start, part in self._pages.get(page, {}).items():
                low = max(start, address)
                high = min(start + len(part), address + size)
                if low < high:
                    changed = changed or bytearray(data)
                    changed[low - address : high - address] = part[
                        low - start : high - start
                    ]
        return bytes(changed) if changed is not None else data

    def close(self) -> None:
        self._pages = {}
