# SPDX-License-Identifier: GPL-2.0-or-later
"""Physical memory that can be written, for backends that keep a table in it."""

from __future__ import annotations

from typing import Protocol

from kmemdump.memory.physical import Memory

__all__ = ["WritableMemory"]


class WritableMemory(Memory, Protocol):
    """Physical memory that can be read and written."""

    def write(self, address: int, data: bytes) -> None:
        """
        Write physical memory, in order: nothing is seen before earlier writes are.

        The machine may die between two writes, and within one. Of an aligned word of 4
        or 8 bytes it sees all or nothing.

        :raises KmemdumpError: If any of the bytes cannot be written.
        """
