# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's image in a memory: its symbols, and the values of its variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import ADDRESS_SPACE

__all__ = ["KernelImage"]


@dataclass(frozen=True, slots=True)
class KernelImage:
    """
    A kernel's image, which is contiguous in a memory.

    The memory may be a file: its addresses need not be physical ones.
    """

    source: str
    """Where it is, for messages."""
    memory: Memory
    shift: int
    """Virtual address minus address in the memory."""
    symbols: Mapping[str, int]
    """Virtual addresses of the symbols that are known, and have one address only."""

    def symbol(self, *names: str) -> int:
        """
        Return the virtual address of the first of *names* that is there.

        :raises FormatError: If none is.
        """
        for name in names:
            if name in self.symbols:
                return self.symbols[name]
        raise FormatError(self.source, f"kallsyms lack {names[0]}, or have several")

    def place(self, virtual: int) -> int:
        """Return the address in the memory of a virtual address in the image."""
        return (virtual - self.shift) % ADDRESS_SPACE

    def read(self, virtual: int, size: int) -> bytes:
        """
        Read memory of the image.

        :raises NotCapturedError: If the memory does not hold it.
        """
        return self.memory.read(self.place(virtual), size)

    def value(self, name: str, size: int = 8) -> int | None:
        """
        Return the value of an unsigned variable; ``None`` if it cannot be read.

        :param size: Its size in bytes.
        """
        try:
            return int.from_bytes(self.read(self.symbol(name), size), "little")
        except (FormatError, NotCapturedError):
            return None
