# SPDX-License-Identifier: GPL-2.0-or-later
"""Decide about each byte, and make the memory that is left."""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable

from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import Range
from kmemdump.redaction import codes
from kmemdump.redaction.changed import ChangedMemory
from kmemdump.redaction.pages import CodedPages
from kmemdump.redaction.places import Known
from kmemdump.redaction.policy import Action
from kmemdump.redaction.reads import ByteRecorder
from kmemdump.redaction.tally import Tally
from kmemdump.redaction.text import Masker
from kmemdump.redaction.texts import Texts, choose_texts

__all__ = ["only_structure", "render"]

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
_NOBODY = b"\xff" * 4
"""The number of no user: it names nobody."""


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
    pages = CodedPages(held, reads.codes)
    keeps_ids = masker.policy.kinds["user-ids"] is Action.KEEP
    keeps_network = masker.policy.kinds["network-addresses"] is Action.KEEP
    # First: a timer that a function waits for is on a stack, and between the stacks of
    # x86_64 for exceptions lies the table of their addresses.
    for item in known.stacks:
        pages.demote(item)
    for part in known.parts:
        code = part.code
        if (code == codes.IDS and keeps_ids) or (
            code == codes.NETWORK and keeps_network
        ):
            code = codes.KEEP
        pages.set_part(part.start, part.size, code)
    for item in known.structure:
        pages.fill(item, codes.KEEP)
    tally = Tally()
    texts = Texts(memory, masker, tally, known.texts)
    for item in known.own:
        pages.fill(item, codes.KEEP)
    # What is no text, or a part of a text that is known, is not TEXT any more.
    read = [run for run in texts_read if pages.code_at(run.start) == codes.TEXT]
    pages.forget_texts()
    runs = choose_texts(read, known.texts)
    for run in runs:
        pages.fill(Range(run.start, run.size), codes.TEXT)
    texts.note_values(runs)
    replaced: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    for run in runs:
        data = texts.masked(run)
        last = (run.start + run.size - 1) // PAGE_SIZE
        for page in range(run.start // PAGE_SIZE, last + 1):
            replaced[page].append((run.start, data))
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
