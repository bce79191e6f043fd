# SPDX-License-Identifier: GPL-2.0-or-later
"""
The kernel's table of its symbols, found by its contents.

Of the order of its tables nothing is believed. The tokens show themselves: each
character that a symbol uses is a token of its own, so the ten digits follow each other.
All else is proven from there: the index says where each token starts, the markers say
where each 256th name starts, and addresses ascend.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kmemdump.errors import FormatError
from kmemdump.formats.kallsyms import (
    INDEX_SIZE,
    MAX_SYMBOLS,
    MAX_TOKEN,
    NAMES_PER_MARKER,
    TABLE_ALIGNMENTS,
    Kallsyms,
    Tokens,
    name_spans,
    parse_tokens,
)

__all__ = ["TOKEN_DIGITS", "find_kallsyms", "find_name", "tokens_at"]

TOKEN_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
"""What each token table contains, and hardly anything else."""

_MIN_MARKERS = 3  # No kernel has as few as 512 functions.
_MAX_NAME = 2 * MAX_TOKEN
"""Limit in bytes of a name as it is stored."""
_MAX_TAIL = 64 << 10
"""Limit in bytes of the names behind the last marker: at most 256 of them."""
_FIRST_MARKERS = re.compile(rb"(?=\0{4}.[\x02-\xff].\0..[\0-\x0f]\0)", re.DOTALL)
"""The first three: 0, and the places of names 256 and 512."""
_MAX_WALKED = 2 * MAX_SYMBOLS
"""Most names that are walked before no more are tried."""
_MAX_TRIED = 64
"""Most places of markers that are tried."""
_REACHES = (1 << 20, 15 << 20)
"""Bytes before the tokens in which markers start, the likely part first."""


def tokens_at(data: bytes, digits: int) -> Tokens | None:
    """
    Return the token table around the tokens of the digits, if its index proves it.

    :param digits: Offset of :data:`TOKEN_DIGITS`.
    """
    end = digits
    for _ in range(NAMES_PER_MARKER - ord("0")):
        end = data.find(b"\0", end, end + MAX_TOKEN + 1) + 1
        if end == 0:
            return None
    for index in {-(-end // unit) * unit for unit in TABLE_ALIGNMENTS}:
        raw = data[index : index + INDEX_SIZE]
        if len(raw) < INDEX_SIZE:
            continue
        table = digits - int.from_bytes(raw[2 * ord("0") :][:2], "little")
        if table < 0:
            continue
        try:
            strings = parse_tokens(raw, data[table:end], "tokens")
        except FormatError:
            continue
        return Tokens(table, index, strings)
    return None


def find_kallsyms(data: bytes, tokens: Tokens, source: str) -> Kallsyms:
    """
    Find the names that belong to a token table.

    :param data: Where the table was found.
    :param source: Name of the data, for messages.
    :raises FormatError: If no names agree with their markers.
    """
    walked = tried = 0
    for markers in _likely_markers(data, tokens.table):
        run = _run(data, markers, tokens.table)
        if len(run) < _MIN_MARKERS:
            continue
        tried += 1
        for names, num_syms, count in _likely_names(data, markers, run):
            for long_names in (True, False):
                end, steps = _walk(data, names, count, run, long_names)
                walked += steps
                if end is not None and end <= markers < end + 8:
                    return Kallsyms(
                        data, source, tokens, num_syms, count, names, end, markers,
                        long_names,
                    )  # fmt: skip
            if walked > _MAX_WALKED:
                break
        if walked > _MAX_WALKED or tried == _MAX_TRIED:
            break
    raise FormatError(
        f"{source}+{tokens.table:#x}",
        "tokens of kallsyms without names that agree with their markers",
    )


def find_name(
    names: bytes, strings: list[bytes], wanted: bytes, long_names: bool
) -> int | None:
    """
    Return the number of the first symbol with a name; ``None`` if it is not there.

    :param names: The beginning of the table of names.
    """
    spans = name_spans(names, 0, len(names), long_names)
    for number, (at, end) in enumerate(spans):
        if b"".join([strings[byte] for byte in names[at:end]])[1:] == wanted:
            return number
    return None


def _likely_markers(data: bytes, end: int) -> Iterator[int]:
    """Yield where the markers may start, the last place before *end* first."""
    for reach in _REACHES:
        start = max(end - reach, 0)
        found = _FIRST_MARKERS.finditer(data, start, end)
        yield from reversed([it.start() for it in found if it.start() % 4 == 0])
        end = start


def _likely_names(
    data: bytes, markers: int, run: list[int]
) -> Iterator[tuple[int, int, int]]:
    """Yield offsets of names and of their number, and that number, if it can be it."""
    # What follows the markers may look like one more.
    for length in range(len(run), max(len(run) - 3, _MIN_MARKERS - 1), -1):
        last = markers - run[length - 1]
        for names in range(last & -4, max(last - _MAX_TAIL, 8) - 1, -4):
            for num_syms in (names - 4, names - 8):
                count = int.from_bytes(data[num_syms : num_syms + 4], "little")
                if -(-count // NAMES_PER_MARKER) == length:
                    yield names, num_syms, count


def _run(data: bytes, markers: int, end: int) -> list[int]:
    """Return the words from an offset on that can be markers."""
    run = [0]
    for at in range(markers + 4, end - 3, 4):
        word = int.from_bytes(data[at : at + 4], "little")
        if not 2 * NAMES_PER_MARKER <= word - run[-1] <= _MAX_NAME * NAMES_PER_MARKER:
            break
        if len(run) > MAX_SYMBOLS // NAMES_PER_MARKER or word > markers:
            break
        run.append(word)
    return run


def _walk(
    data: bytes, names: int, count: int, markers: list[int], long_names: bool
) -> tuple[int | None, int]:
    """
    Walk all names, while each 256th is where its marker says.

    :return: Where they end, if all are there; and the number of those walked.
    """
    end, number = names, 0
    for _, after in name_spans(data, names, count, long_names):
        if (
            not number % NAMES_PER_MARKER
            and end - names != markers[number // NAMES_PER_MARKER]
        ):
            break
        end = after
        number += 1
    return end if number == count else None, number
