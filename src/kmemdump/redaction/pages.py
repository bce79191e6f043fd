# SPDX-License-Identifier: GPL-2.0-or-later
"""The code of each byte, page by page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import Range, parts_in
from kmemdump.redaction import codes

__all__ = ["CodedPages"]

_TO_STACK = bytes(
    codes.SLACK if it == codes.SLACK else codes.STACK for it in range(256)
)
_TEXT_TO_DATA = bytes(codes.DATA if it == codes.TEXT else it for it in range(256))
_ONLY_BULK = {
    code: bytes(code if it in (codes.WORDS, codes.SLACK) else it for it in range(256))
    for code in (codes.WORDS, codes.SLACK)
}


class CodedPages:
    """The code of each byte that is held."""

    def __init__(self, held: Iterable[Range], read: dict[int, bytearray]) -> None:
        self._held = sorted(held)
        self._codes: dict[int, bytearray] = {}
        for item in self._held:
            for page in range(item.start // PAGE_SIZE, (item.end - 1) // PAGE_SIZE + 1):
                if page not in self._codes:
                    found = read.get(page)
                    self._codes[page] = bytearray(found or PAGE_SIZE)

    def _cut(self, item: Range) -> Iterator[tuple[bytearray, int, int]]:
        start = item.start
        while start < item.end:
            page, low = divmod(start, PAGE_SIZE)
            size = min(item.end - start, PAGE_SIZE - low)
            found = self._codes.get(page)
            if found is not None:
                yield found, low, low + size
            start += size

    def fill(self, item: Range, code: int) -> None:
        for found, low, high in self._cut(item):
            found[low:high] = bytes([code]) * (high - low)

    def demote(self, item: Range) -> None:
        """Keep only addresses and small numbers of a stack, also where it was read."""
        for found, low, high in self._cut(item):
            found[low:high] = found[low:high].translate(_TO_STACK)

    def forget_texts(self) -> None:
        """Let no byte be text."""
        for page, found in self._codes.items():
            self._codes[page] = found.translate(_TEXT_TO_DATA)

    def set_part(self, start: int, size: int, code: int) -> None:
        """
        Set what a part of a structure is.

        What was read as text stays text, but for numbers of a byte each.
        """
        for found, low, high in self._cut(Range(start, size)):
            part = found[low:high]
            if code in (codes.WORDS, codes.SLACK):
                # A number that a question reads by itself stays.
                table = _ONLY_BULK[code]
            elif code == codes.KEEP or codes.TEXT not in part:
                found[low:high] = bytes([code]) * (high - low)
                continue
            else:
                table = bytes(it if it == codes.TEXT else code for it in range(256))
            found[low:high] = part.translate(table)

    def pieces(self) -> Iterator[tuple[Range, bytearray]]:
        """Yield the parts of pages that are held, with the codes of their bytes."""
        for page, found in self._codes.items():
            whole = Range(page * PAGE_SIZE, PAGE_SIZE)
            for item in parts_in(whole, self._held):
                low = item.start - whole.start
                yield item, found[low : low + item.size]

    def code_at(self, address: int) -> int:
        found = self._codes.get(address // PAGE_SIZE)
        return codes.KEEP if found is None else found[address % PAGE_SIZE]
