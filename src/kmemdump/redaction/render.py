# SPDX-License-Identifier: GPL-2.0-or-later
"""Decide about each byte, and make the memory that is left."""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from kmemdump.memory.physical import PAGE_SIZE, Memory
from kmemdump.memory.ranges import Range, parts_in
from kmemdump.redaction import codes
from kmemdump.redaction.known import Known
from kmemdump.redaction.policy import Action
from kmemdump.redaction.reads import ByteRecorder, TextRun
from kmemdump.redaction.text import Masker

__all__ = ["ChangedMemory", "Tally", "only_structure", "render"]

_WORD = 8
_SMALL = 1 << 22
"""A word below it is a number: of text, it would be three characters at most."""
_SMALL_HALF = 1 << 16
_NEGATIVE_HALF = 0xFFFFFF00
_TEXT = re.compile(rb"[\x20-\x7e]{6,}")
_WHOLE = {
    codes.SLACK: "slack",
    codes.DATA: "other-data",
    codes.STATE: "processor-state",
    codes.IDS: "user-ids",
    codes.NETWORK: "network-addresses",
}
"""The kind of data of each code."""
_BY_WORDS = (codes.WORDS, codes.STACK)
_STAY = (codes.TEXT, codes.KEEP, *_BY_WORDS)
_KEPT = bytes(255 if it in _STAY else 0 for it in range(256))
_DROPPED = bytes(255 - it for it in _KEPT)
_TO_STACK = bytes(
    codes.SLACK if it == codes.SLACK else codes.STACK for it in range(256)
)
_TEXT_TO_DATA = bytes(codes.DATA if it == codes.TEXT else it for it in range(256))
_NOBODY = b"\xff" * 4
"""The number of no user: it names nobody."""


@dataclass
class Tally:
    """Counts of bytes and places, by kind of data."""

    removed: Counter[str] = field(default_factory=Counter)
    """Bytes that were not zero or ``x`` before, and are now."""
    places: Counter[str] = field(default_factory=Counter)
    """Texts that were masked, in whole or in part."""
    kept: Counter[str] = field(default_factory=Counter)
    """Bytes of text that stay."""
    text_in_slack: int = 0
    """Of the bytes that no question reads, those that were text."""
    structure: int = 0
    """Bytes that stay and are no text."""

    def add(self, other: Tally) -> None:
        """Add what a further pass removed; what stays is as that pass found it."""
        self.removed += other.removed
        self.places += other.places
        self.text_in_slack += other.text_in_slack
        self.kept, self.structure = other.kept, other.structure


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


def render(
    memory: ChangedMemory,
    held: Iterable[Range],
    reads: ByteRecorder,
    known: Known,
    masker: Masker,
    is_kernel: Callable[[int], bool],
) -> tuple[bool, Tally]:
    """
    Change a memory to what may stay of it.

    :param held: The memory that the core image has.
    :param is_kernel: Returns whether a number is a kernel address.
    :return: Whether anything changed, and what.
    """
    texts_read = reads.texts()  # First: it says of the last one that it is text.
    pages = _Pages(held, reads.codes)
    keeps_ids = masker.policy.kinds["user-ids"] is Action.KEEP
    keeps_network = masker.policy.kinds["network-addresses"] is Action.KEEP
    for part in known.parts:
        code = part.code
        if (code == codes.IDS and keeps_ids) or (
            code == codes.NETWORK and keeps_network
        ):
            code = codes.KEEP
        pages.set_part(part.start, part.size, code)
    for item in known.structure:
        pages.fill(item, codes.KEEP)
    for item in known.stacks:
        pages.demote(item)
    tally = Tally()
    texts = _Texts(memory, masker, tally, known.texts)
    for item in known.own:
        pages.fill(item, codes.KEEP)
    # What is no text, or a part of a text that is known, is not TEXT any more.
    read = [run for run in texts_read if pages.code_at(run.start) == codes.TEXT]
    pages.forget_texts()
    runs = _choose(read, known.texts)
    for run in runs:
        pages.fill(Range(run.start, run.size), codes.TEXT)
    texts.note_values(runs)
    replaced: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    for run in runs:
        for start, data in texts.replace(run):
            replaced[start // PAGE_SIZE].append((start, data))
    changed = False
    for piece, found in pages.pieces():
        before = memory.read(piece.start, piece.size)
        after = bytearray(_rendered(piece, before, found, is_kernel, tally))
        for start, data in replaced.get(piece.start // PAGE_SIZE, ()):
            low, high = max(start, piece.start), min(start + len(data), piece.end)
            for at in range(low, high):
                # Several may have read this text, each for another kind.
                one, other = after[at - piece.start], data[at - start]
                if one == before[at - piece.start]:
                    after[at - piece.start] = other
        if after != before:
            changed = True
            memory.change(piece.start, bytes(after))
    return changed, tally


def only_structure(data: bytes, is_kernel: Callable[[int], bool]) -> bytes:
    """Return words of which only addresses and small numbers stay."""
    found = bytearray(data)
    for at in range(0, len(data) & -_WORD, _WORD):
        word = data[at : at + _WORD]
        found[at : at + _WORD] = _word(word, is_kernel, halves=False)
    return bytes(found)


def _word(data: bytes, is_kernel: Callable[[int], bool], *, halves: bool) -> bytes:
    value, low, high = *struct.unpack("<Q", data), *struct.unpack("<II", data)
    if value < _SMALL or is_kernel(value):
        return data
    if not halves:
        return bytes(_WORD)
    return b"".join(
        data[at : at + 4] if it < _SMALL_HALF or it >= _NEGATIVE_HALF else bytes(4)
        for at, it in ((0, low), (4, high))
    )


def _rendered(
    piece: Range,
    data: bytes,
    found: bytearray,
    is_kernel: Callable[[int], bool],
    tally: Tally,
) -> bytes:
    mask = found.translate(_DROPPED)
    if any(mask):
        dropped = _and(data, mask)
        if any(dropped):
            for code in set(found).difference(_STAY):
                only = bytes(255 if it == code else 0 for it in range(256))
                part = _and(data, found.translate(only))
                if code == codes.IDS and _NOBODY in part:
                    part = part.replace(_NOBODY, bytes(4))
                tally.removed[_WHOLE[code]] += len(part) - part.count(0)
                if code == codes.SLACK:
                    tally.text_in_slack += sum(map(len, _TEXT.findall(part)))
            data = _and(data, _mask(data, found))
    tally.structure += found.count(codes.KEEP)
    if not any(code in found for code in _BY_WORDS):
        return data
    result = bytearray(data)
    for at in range(-(piece.start % _WORD), len(found), _WORD):
        low, high = max(at, 0), min(at + _WORD, len(found))
        word, of = data[low:high], found[low:high]
        if not any(word) or not any(code in of for code in _BY_WORDS):
            continue
        # What is held of a word in part is no address.
        left = bytes(len(word))
        on_stack = codes.STACK in of
        if len(word) == _WORD:
            left = _word(word, is_kernel, halves=not on_stack)
        if left != word:
            for i in range(len(word)):
                if of[i] in _BY_WORDS and word[i] != left[i]:
                    result[low + i] = left[i]
                    tally.removed["stacks" if on_stack else "other-data"] += 1
    return bytes(result)


def _mask(data: bytes, found: bytearray) -> bytearray:
    """Return a mask with ones where bytes stay for now."""
    mask = found.translate(_KEPT)
    at = found.find(codes.IDS)
    while at >= 0:
        if data[at : at + 4] == _NOBODY and found[at : at + 4].count(codes.IDS) == 4:
            mask[at : at + 4] = _NOBODY
        at = found.find(codes.IDS, at + 4)
    return mask


def _and(data: bytes, mask: bytes | bytearray) -> bytes:
    value = int.from_bytes(data, "little") & int.from_bytes(mask, "little")
    return value.to_bytes(len(data), "little")


class _Pages:
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
        """Let only addresses and small numbers stay of a stack, whoever read it."""
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


_ONLY_BULK = {
    code: bytes(code if it in (codes.WORDS, codes.SLACK) else it for it in range(256))
    for code in (codes.WORDS, codes.SLACK)
}


def _choose(read: Iterable[TextRun], known: Sequence[TextRun]) -> list[TextRun]:
    """Return the known texts, and those that were read elsewhere."""
    ordered = sorted(known)
    starts = [run.start for run in ordered]

    def is_known(run: TextRun) -> bool:
        i = bisect_right(starts, run.start + run.size - 1) - 1
        return i >= 0 and ordered[i].start + ordered[i].size > run.start

    return [*ordered, *(run for run in read if not is_known(run))]


class _Texts:
    """Masks texts, and counts."""

    def __init__(
        self,
        memory: Memory,
        masker: Masker,
        tally: Tally,
        known: Iterable[TextRun],
    ) -> None:
        self._memory = memory
        self._known = frozenset(known)
        self._masker = masker
        self._tally = tally

    def note_values(self, runs: Iterable[TextRun]) -> None:
        for run in runs:
            if run.kind in self._masker.policy.spread:
                self._masker.add_value(run.kind, self._read(run).partition(b"\0")[0])

    def replace(self, run: TextRun) -> Iterator[tuple[int, bytes]]:
        """Yield what is put in the place of a text."""
        before = text = self._read(run)
        if run.kind != "log-text" and run in self._known:
            text = before.partition(b"\0")[0]  # Behind it is what was there before.
        pieces = (
            self._masker.mask(run.kind, it) if len(it) > 1 else it
            for it in text.split(b"\0")
        )
        after = b"\0".join(pieces).ljust(run.size, b"\0")
        gone = sum(one != other for one, other in zip(before, after, strict=True))
        if gone:
            self._tally.removed[run.kind] += gone
            self._tally.places[run.kind] += 1
        self._tally.kept[run.kind] += sum(
            one == other and one not in b"\0x"
            for one, other in zip(text, after[: len(text)], strict=True)
        )
        yield run.start, after

    def _read(self, run: TextRun) -> bytes:
        return self._memory.read(run.start, run.size)
