# SPDX-License-Identifier: GPL-2.0-or-later
"""
Physical memory that is mapped, so that it can be written.

Aligned words are read and stored as a whole: another processor, or firmware after a
crash, sees all of a word or nothing, and memory that is mapped uncached (Arm's no-map
through /dev/mem) allows nothing else.
"""

from __future__ import annotations

import mmap
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from kmemdump.errors import NotCapturedError, TargetError
from kmemdump.memory.ranges import Extent, Range, merge

__all__ = ["MappedMemory"]

_WORD = 8
_HALF = 4


@dataclass(frozen=True, slots=True)
class _Window:
    extent: Extent
    map: mmap.mmap
    words: memoryview
    halves: memoryview
    bytes: memoryview

    @property
    def end(self) -> int:
        return self.extent.address + self.extent.size


class MappedMemory:
    """
    Physical memory in a file: a VM's RAM, ``/dev/mem``.

    Nothing outside of the extents can be written.

    :param fd: Open for reading and writing; belongs to the caller.
    :param extents: Addresses, sizes and offsets are multiples of pages.
    :param name: Name of the file, for messages.
    :param within: What can be read and written of these pages; ``None`` for all.
    :raises TargetError: If it cannot be mapped.
    """

    def __init__(
        self,
        fd: int,
        extents: Sequence[Extent],
        name: str,
        within: Sequence[Range] | None = None,
    ) -> None:
        self._name = name
        self._windows: list[_Window] = []
        pages = [Range(extent.address, extent.size) for extent in extents]
        self.ranges: Sequence[Range] = merge(pages if within is None else within)
        for extent in sorted(extents):
            try:
                mapped = mmap.mmap(fd, extent.size, offset=extent.offset)
            except (OSError, ValueError) as error:
                self.close()
                where = f"{extent.address:#x}-{extent.address + extent.size:#x}"
                raise TargetError(f"{name}: cannot map {where}: {error}") from error
            plain = memoryview(mapped)
            window = _Window(extent, mapped, plain.cast("Q"), plain.cast("I"), plain)
            self._windows.append(window)

    def read(self, address: int, size: int) -> bytes:
        window, at = self._find(address, size)
        first, last = at // _WORD, -(-(at + size) // _WORD)
        words = array("Q", window.words[first:last].tolist()).tobytes()
        return words[at - first * _WORD :][:size]

    def write(self, address: int, data: bytes) -> None:
        """
        Write memory in the order of addresses, with as few stores as possible.

        :raises NotCapturedError: If any of it is not mapped; nothing is written then.
        """
        window, at = self._find(address, len(data))
        done = 0
        while done < len(data):
            here = at + done
            left = len(data) - done
            if here % _WORD == 0 and left >= _WORD:
                count = left // _WORD
                words = array("Q", data[done : done + count * _WORD])
                for i in range(count):
                    window.words[here // _WORD + i] = words[i]
                done += count * _WORD
            elif here % _HALF == 0 and left >= _HALF:
                word = int.from_bytes(data[done : done + _HALF], sys.byteorder)
                window.halves[here // _HALF] = word
                done += _HALF
            else:
                window.bytes[here] = data[done]
                done += 1

    def close(self) -> None:
        for window in self._windows:
            for view in (window.words, window.halves, window.bytes):
                view.release()
            window.map.close()
        self._windows = []

    def _find(self, address: int, size: int) -> tuple[_Window, int]:
        usable = any(
            it.start <= address and address + size <= it.end for it in self.ranges
        )
        for window in self._windows if usable else ():
            if window.extent.address <= address and address + size <= window.end:
                return window, address - window.extent.address
        raise NotCapturedError(
            f"{self._name}: {address:#x}-{address + size:#x} is not mapped for writing"
        )
