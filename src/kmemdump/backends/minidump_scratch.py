# SPDX-License-Identifier: GPL-2.0-or-later
"""
Scratch memory of the minidump backend.

Layout: the region array, if it is ours; then two halves for VMCOREINFO and two for the
ELF header. New data is written to the half that is not in use.
"""

from __future__ import annotations

from kmemdump.errors import BackendError
from kmemdump.memory.physical import WritableMemory
from kmemdump.memory.ranges import Range, round_down, round_up

__all__ = ["Scratch"]

_UNIT = 8  # Each half starts at a multiple of this.


class Scratch:
    """
    Scratch memory.

    :param where: Physically contiguous and unused.
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
        """Physical address of our region array."""
        return self._where.start

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self._where.size

    def holds(self, address: int, size: int) -> bool:
        """Return whether it contains a range."""
        return self._where.start <= address and address + size <= self._where.end

    def reserve_array(self, size: int) -> int:
        """Reserve the start for the region array, and return its address."""
        self._free = self.array + size
        return self.array

    def place(self, kind: str, data: bytes) -> Range:
        """
        Write *data* to the half that is not in use, unless the other one holds it.

        :param kind: ``vmcoreinfo`` first, then ``header``, which gets the rest.
        :raises BackendError: If it does not fit.
        """
        if kind not in self._places:
            self._places[kind] = self._divide(kind, len(data))
        start, room = self._places[kind]
        half, old = self._in_use.get(kind, (1, None))
        if old != data:
            half = 1 - half
            if len(data) > room:
                raise BackendError(
                    f"the scratch memory has {room} bytes for the {kind}, expected "
                    f"{len(data)}"
                )
            self._memory.write(start + half * room, data)
        self._next[kind] = half, data
        return Range(start + half * room, len(data))

    def commit(self) -> None:
        """Mark the halves that were written last as in use."""
        self._in_use.update(self._next)
        self._next.clear()

    def _divide(self, kind: str, size: int) -> tuple[int, int]:
        left = self._where.end - self._free
        room = round_up(size, _UNIT)
        if kind == "header":
            room = round_down(left // 2, _UNIT)
        if room < size or 2 * room > left:
            raise BackendError(
                f"the scratch memory has {left} bytes left, expected {2 * size} for "
                f"two copies of the {kind}"
            )
        start = self._free
        self._free += 2 * room
        return start, room
