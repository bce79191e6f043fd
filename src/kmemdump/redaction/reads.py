# SPDX-License-Identifier: GPL-2.0-or-later
"""
Record how each byte is read: as a number, as text, or with many others.

drgn reads numbers and pointers by themselves, and strings byte by byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from kmemdump.areas.contents import OTHER_TEXT
from kmemdump.memory.physical import PAGE_SIZE, Memory
from kmemdump.memory.recorder import Recorder
from kmemdump.redaction.codes import KEEP, SLACK, TEXT, WORDS

__all__ = ["ByteRecorder", "TextRun"]

_NUMBER = 8
"""Most bytes of a number."""
_SHORTEST = 3
"""Least bytes that are read one after the other and taken for text, with its NUL."""


class TextRun(NamedTuple):
    """Text that was read."""

    start: int
    """Physical address."""
    size: int
    """Bytes, with the NUL."""
    kind: str


class ByteRecorder(Recorder):
    """A recorder that knows how each byte was read."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.codes: dict[int, bytearray] = {}
        """For each page, a code of :mod:`kmemdump.redaction.codes` for each byte."""
        self.last = (0, 0)
        """Physical address and size of what was read last."""
        self.kind = ""
        """Kind of the text that is read from now on."""
        self._runs: dict[tuple[int, str], int] = {}
        self._start = self._next = 0
        self._inside = self._silent = False

    @contextmanager
    def unnoticed(self) -> Iterator[None]:
        """Do not record reads in the body of the ``with`` statement."""
        before, self._silent = self._silent, True
        try:
            yield
        finally:
            self._silent = before

    def texts(self) -> list[TextRun]:
        """Return the text that was read; several may have read one, as other kinds."""
        self._end_run()
        kinds: dict[int, set[str]] = {}
        for start, kind in self._runs:
            kinds.setdefault(start, set()).add(kind)
        return [
            TextRun(start, size, kind or OTHER_TEXT)
            for (start, kind), size in self._runs.items()
            if kind or kinds[start] == {""}
        ]

    def read(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        if self._inside:  # One read for its pages.
            return super().read(address, count, offset, physical)
        self._inside = True
        try:
            data = super().read(address, count, offset, physical)
        finally:
            self._inside = False
        self.last = address, count
        if not self._silent:
            self._note(address, count)
        return data

    def _note(self, address: int, count: int) -> None:
        if count == 1:
            # Reads of page tables may be between those of a string's bytes.
            if address != self._next:
                self._end_run()
                self._start = address
            self._next = address + 1
        page, low = divmod(address, PAGE_SIZE)
        if low + count <= PAGE_SIZE and count <= _NUMBER:
            codes = self._page(page)
            for i in range(low, low + count):
                if codes[i] != TEXT:
                    codes[i] = KEEP
            return
        end = address + count
        while address < end:
            page, low = divmod(address, PAGE_SIZE)
            size = min(end - address, PAGE_SIZE - low)
            codes = self._page(page)
            part = codes[low : low + size]
            if SLACK in part:
                codes[low : low + size] = part.replace(bytes([SLACK]), bytes([WORDS]))
            address += size

    def _end_run(self) -> None:
        size = self._next - self._start
        if size >= _SHORTEST:
            key = self._start, self.kind
            self._runs[key] = max(self._runs.get(key, 0), size)
            for address in range(self._start, self._next):
                self._page(address // PAGE_SIZE)[address % PAGE_SIZE] = TEXT
        self._start = self._next = 0

    def begin(self, kind: str) -> None:
        """
        Take text that is read from now on for one of *kind*.

        :param kind: Empty if others know better what it is.
        """
        self._end_run()
        self.kind = kind

    def _page(self, page: int) -> bytearray:
        found = self.codes.get(page)
        if found is None:
            found = self.codes[page] = bytearray(PAGE_SIZE)
        return found
