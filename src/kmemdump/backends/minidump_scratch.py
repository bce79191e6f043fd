# SPDX-License-Identifier: GPL-2.0-or-later
"""
Memory for what the minidump backend keeps besides the machine's own data.

Layout: the region array, if it is ours; then two places for VMCOREINFO and two for the
ELF header. What is new is written to the place that is not in use.
"""

from __future__ import annotations

from kmemdump.errors import BackendError
from kmemdump.memory.ranges import Range, round_down, round_up
from kmemdump.memory.writable import WritableMemory

__all__ = ["Scratch"]

_UNIT = 8  # Places start at a whole word of 8 bytes.


class Scratch:
    """
    A scratch area.

    :param where: Physically contiguous memory that nobody else uses.
    """

    def __init__(self, memory: WritableMemory, where: Range) -> None:
        start = round_up(where.start, _UNIT)
        self._memory = memory
        self._where = Range(start, max(where.end - start, 0))
        self._free = start
        self._places: dict[str, tuple[int, int]] = {}  # Start and size of each half.
        self._in_use: dict[str, tuple[int, bytes]] = {}  # Half and bytes.
        self._next: dict[str, tuple[int, bytes]] = {}

    @property
    def array(self) -> int:
        """Physical address that a region array of ours has."""
        return self._where.start

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self._where.size

    def holds(self, address: int, size: int) -> bool:
        """Return whether a range is in the area."""
        return self._where.start <= address and address + size <= self._where.end

    def reserve_array(self, size: int) -> int:
        """Keep the start of the area for the region array."""
        self._free = self.array + size
        return self.array

    def place(self, kind: str, data: bytes) -> Range:
        """
        Write *data* where it is not in use, or leave it where it is already.

        :param kind: ``vmcoreinfo`` first, then ``header``, which gets what is left.
        :raises BackendError: If there is no room.
        """
        if kind not in self._places:
            self._places[kind] = self._divide(kind, len(data))
        start, room = self._places[kind]
        half, old = self._in_use.get(kind, (1, None))
        if old != data:
            half = 1 - half
            if len(data) > room:
                raise BackendError(
                    f"the scratch area has {room} bytes for the {kind}, expected "
                    f"{len(data)}"
                )
            self._memory.write(start + half * room, data)
        self._next[kind] = half, data
        return Range(start + half * room, len(data))

    def commit(self) -> None:
        """Say that what was placed is in use now."""
        self._in_use.update(self._next)
        self._next.clear()

    def _divide(self, kind: str, size: int) -> tuple[int, int]:
        left = self._where.end - self._free
        room = round_up(size, _UNIT)
        if kind == "header":
            room = round_down(left // 2, _UNIT)
        if room < size or 2 * room > left:
            raise BackendError(
                f"the scratch area has {left} bytes left, expected {2 * size} for two "
                f"copies of the {kind}"
            )
        start = self._free
        self._free += 2 * room
        return start, room
