# SPDX-License-Identifier: GPL-2.0-or-later
"""
The kernel's table of its symbols, found and decoded by its contents.

scripts/kallsyms.c writes five tables next to each other. Their order, their alignment
and the meaning of addresses differ between kernels:

- offsets (of addresses), relative base, count, names, markers, tokens: until Linux
  kernel commit 404bad70fcf7 ("scripts/kallsyms: change the output order") (in v6.4);
- count, names, markers, tokens, offsets, relative base: since then;
- without a base, since commit a081b5789255 ("kallsyms: Get rid of kallsyms relative
  base") (in v7.0): an offset is relative to its own place.

So nothing is believed of their order. The tokens show themselves: each character that
a symbol uses is a token of its own, so the ten digits follow each other. All else is
proven from there: the index says where each token starts, the markers say where each
256th name starts, and addresses ascend.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from kmemdump.errors import FormatError

__all__ = [
    "MAX_SYMBOLS",
    "TOKEN_DIGITS",
    "Kallsyms",
    "SymbolAddresses",
    "Tokens",
    "find_kallsyms",
    "find_name",
    "parse_tokens",
    "size_of_sequences",
    "tokens_at",
]

TOKEN_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
"""What each token table contains, and hardly anything else."""

MAX_SYMBOLS = 4 << 20
"""Most symbols that are believed; Debian's kernels have 200,000."""
_STEP = 256  # Names between two markers.
_MIN_MARKERS = 3  # No kernel has as few as 512 functions.
_INDEX = struct.Struct("<256H")
_MAX_TOKEN = 512  # KSYM_NAME_LEN
_MAX_NAME = 2 * _MAX_TOKEN
"""Limit in bytes of a name as it is stored."""
_MAX_TAIL = 64 << 10
"""Limit in bytes of the names behind the last marker: at most 256 of them."""
_ALIGNMENTS = (1, 2, 4, 8)
_FIRST_MARKERS = re.compile(rb"(?=\0{4}.[\x02-\xff].\0..[\0-\x0f]\0)", re.DOTALL)
"""The first three: 0, and the places of names 256 and 512."""
_MAX_WALKED = 2 * MAX_SYMBOLS
"""Most names that are walked before no more are tried."""
_MAX_TRIED = 64
"""Most places of markers that are tried."""
_REACHES = (1 << 20, 15 << 20)
"""Bytes before the tokens in which markers start, the likely part first."""
_PROMOTED = b".llvm."
"""Precedes the hash in the name of a static symbol that thin LTO made global."""
_KERNEL = 1 << 63
"""Kernel addresses are in the upper half."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The strings that the bytes of names stand for."""

    table: int
    """Offset of the strings."""
    index: int
    """Offset of the table of their places."""
    strings: list[bytes]


@dataclass(frozen=True, slots=True)
class SymbolAddresses:
    """The addresses of all symbols, in the order of their names."""

    offsets: int
    """Offset of the table."""
    base: int | None
    """Offset of the relative base; ``None`` if each is relative to its place."""
    values: array[int]
    """
    Virtual addresses. If :attr:`base` is ``None``, offsets from the start of the data
    instead, which may be negative.
    """


@dataclass(frozen=True, slots=True)
class Kallsyms:
    """All tables but that of addresses, of which the contents allow several."""

    data: bytes
    source: str
    tokens: Tokens
    num_syms: int
    """Offset of the number of symbols."""
    count: int
    """Number of symbols."""
    names: int
    """Offset of the names."""
    names_end: int
    """Offset after the names."""
    markers: int
    """Offset of the markers."""
    long_names: bool
    """Whether a length of 128 or more takes two bytes."""

    def addresses(self) -> Iterator[SymbolAddresses]:
        """
        Yield each way in which addresses can be read so that they ascend.

        The likelier ones come first: a kernel with a base has one next to its table.
        """
        size = 4 * self.count
        after = self.tokens.index + _INDEX.size
        places = []
        for alignment in (4, 8):
            # The base is 8 bytes, aligned, in either order.
            base = (self.num_syms - 8) & -8
            places.append(((base - size) & -alignment, base))
            offsets = -(-after // alignment) * alignment
            places.append((offsets, -(-(offsets + size) // 8) * 8))
        seen = set()
        for offsets, base in places:
            if (offsets, base) not in seen:
                seen.add((offsets, base))
                yield from self._from_base(offsets, base)
        for offsets in sorted({offsets for offsets, _ in places if offsets >= after}):
            yield from self._from_place(offsets)

    def find(self, wanted: Collection[str]) -> dict[str, list[int]]:
        """
        Find symbols by name, without what the compiler added to it.

        :return: The names that were found, and the number of each of their symbols.
        """
        names = {name.encode("ascii", "replace") for name in wanted}
        found: dict[str, list[int]] = {}
        for i, symbol in enumerate(self.decoded()):
            name = symbol[1:]
            if _PROMOTED in name:
                name = name.partition(_PROMOTED)[0]
            if name in names:
                found.setdefault(name.decode("ascii"), []).append(i)
        return found

    def find_sequences(self, ends: Iterable[int]) -> int | None:
        """
        Find the table that orders the symbols by name; kernels have one since v6.2.

        It has the number of each symbol once, and follows another table, or is before
        the tokens.

        :param ends: Where tables end that are not known here: of addresses, their base.
        :return: Its offset; ``None`` if it is not found.
        """
        size = size_of_sequences(self.count)
        markers = 4 * -(-self.count // _STEP)
        after = (self.names_end, self.markers + markers, *ends)
        places = [self.tokens.table - size - padding for padding in range(8)]
        places += [-(-end // unit) * unit for end in after for unit in _ALIGNMENTS]
        for place in dict.fromkeys(places):
            raw = self.data[place : place + size] if place >= 0 else b""
            if len(raw) == size and _is_order(raw, self.count):
                return place
        return None

    def decoded(self) -> Iterator[bytes]:
        """Yield each symbol's type (a letter, as ``nm`` prints it) and name."""
        data, strings, long_names = self.data, self.tokens.strings, self.long_names
        at = self.names
        for _ in range(self.count):
            size = data[at]
            at += 1
            if size & 0x80 and long_names:
                size = size & 0x7F | data[at] << 7
                at += 1
            yield b"".join([strings[byte] for byte in data[at : at + size]])
            at += size

    def _from_base(self, offsets: int, base: int) -> Iterator[SymbolAddresses]:
        raw = _words(self.data, "I", offsets, self.count)
        if raw is None or not 0 <= base <= len(self.data) - 8:
            return
        start = int.from_bytes(self.data[base : base + 8], "little")
        if start < _KERNEL:
            return
        try:
            if _ascends(raw):
                values = array("Q", [start + offset for offset in raw])
            else:
                # CONFIG_KALLSYMS_ABSOLUTE_PERCPU: those below 2 GiB are absolute.
                above = start - 1 + (1 << 32)
                values = array("Q", [it if it < 1 << 31 else above - it for it in raw])
        except OverflowError:  # Past the end of the address space.
            return
        if _ascends(values):
            yield SymbolAddresses(offsets, base, values)

    def _from_place(self, offsets: int) -> Iterator[SymbolAddresses]:
        raw = _words(self.data, "i", offsets, self.count)
        if raw is None:
            return
        places = range(offsets, offsets + 4 * self.count, 4)
        values = array("q", map(int.__add__, raw, places))
        if _ascends(values):
            yield SymbolAddresses(offsets, None, values)


def size_of_sequences(count: int) -> int:
    """Return the size in bytes of the table that orders the symbols by name."""
    return 3 * count


def _is_order(raw: bytes, count: int) -> bool:
    """Return whether the numbers of three bytes are all those below *count*."""
    # kallsyms_seqs_of_names, big-endian: scripts/kallsyms.c, since Linux kernel commit
    # 60443c88f3a8 ("kallsyms: Improve the performance of kallsyms_lookup_name()").
    high, middle, low = raw[::3], raw[1::3], raw[2::3]
    if max(high) > count >> 16:
        return False
    numbers = {a << 16 | b << 8 | c for a, b, c in zip(high, middle, low, strict=True)}
    return len(numbers) == count and max(numbers) == count - 1


def tokens_at(data: bytes, digits: int) -> Tokens | None:
    """
    Return the token table around the tokens of the digits, if its index proves it.

    :param digits: Offset of :data:`TOKEN_DIGITS`.
    """
    end = digits
    for _ in range(_STEP - ord("0")):
        end = data.find(b"\0", end, end + _MAX_TOKEN + 1) + 1
        if end == 0:
            return None
    for index in {-(-end // unit) * unit for unit in _ALIGNMENTS}:
        raw = data[index : index + _INDEX.size]
        if len(raw) < _INDEX.size:
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
    :raises FormatError: If there are none.
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


def parse_tokens(index: bytes, table: bytes, source: str) -> list[bytes]:
    """
    Return the strings of a token table whose index is known.

    :param table: The strings; what follows them is ignored.
    :raises FormatError: If the two do not agree.
    """
    if len(index) != _INDEX.size:
        raise FormatError(
            source, f"{len(index)} bytes of kallsyms' index, expected {_INDEX.size}"
        )
    starts = _INDEX.unpack(index)
    strings = table.split(b"\0", len(starts))[: len(starts)]
    at = 0
    for start, string in zip(starts, strings, strict=False):
        if start != at or len(string) > _MAX_TOKEN:
            break
        at += len(string) + 1
    else:
        if len(strings) == len(starts) and at <= len(table):
            return strings
    raise FormatError(source, "the index of kallsyms' tokens does not agree with them")


def find_name(
    names: bytes, strings: list[bytes], wanted: bytes, long_names: bool
) -> int | None:
    """
    Return the number of the first symbol with a name; ``None`` if it is not there.

    :param names: The beginning of the table of names.
    """
    at = number = 0
    while at < len(names) - 1:
        size = names[at]
        at += 1
        if size & 0x80 and long_names:
            size = size & 0x7F | names[at] << 7
            at += 1
        if not size or at + size > len(names):
            return None
        if b"".join([strings[byte] for byte in names[at : at + size]])[1:] == wanted:
            return number
        at, number = at + size, number + 1
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
                if -(-count // _STEP) == length:
                    yield names, num_syms, count


def _run(data: bytes, markers: int, end: int) -> list[int]:
    """Return the words from an offset on that can be markers."""
    run = [0]
    for at in range(markers + 4, end - 3, 4):
        word = int.from_bytes(data[at : at + 4], "little")
        if not 2 * _STEP <= word - run[-1] <= _MAX_NAME * _STEP:
            break
        if len(run) > MAX_SYMBOLS // _STEP or word > markers:
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
    at, end = names, len(data)
    for i in range(count):
        if (not i % _STEP and at - names != markers[i // _STEP]) or at + 1 >= end:
            return None, i
        size = data[at]
        at += 1
        if size & 0x80 and long_names:
            size = size & 0x7F | data[at] << 7
            at += 1
        if not size:
            return None, i
        at += size
    return at if at <= end else None, count


def _words(data: bytes, code: str, at: int, count: int) -> array[int] | None:
    """Return little-endian words of 4 bytes; ``None`` if *data* lacks one."""
    if at < 0 or at + 4 * count > len(data):
        return None
    words = array(code, data[at : at + 4 * count])
    if sys.byteorder == "big":
        words.byteswap()
    return words


def _ascends(values: array[int]) -> bool:
    return all(a <= b for a, b in pairwise(values))
