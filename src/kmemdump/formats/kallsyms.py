# SPDX-License-Identifier: GPL-2.0-or-later
"""
The kernel's table of its symbols, kallsyms.

scripts/kallsyms.c writes five tables next to each other. Their order, their alignment
and the meaning of addresses differ between kernels:

- offsets (of addresses), relative base, count, names, markers, tokens: until Linux
  kernel commit 404bad70fcf7 ("scripts/kallsyms: change the output order") (in v6.4);
- count, names, markers, tokens, offsets, relative base: since then;
- without a base, since commit a081b5789255 ("kallsyms: Get rid of kallsyms relative
  base") (in v7.0): an offset is relative to its own place.

The markers, which say where each 256th name starts, prove the names.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from kmemdump.errors import FormatError
from kmemdump.formats.symbols import SymbolTable

__all__ = [
    "INDEX_SIZE",
    "MAX_SYMBOLS",
    "MAX_TOKEN",
    "NAMES_PER_MARKER",
    "TABLE_ALIGNMENTS",
    "Kallsyms",
    "SymbolAddresses",
    "Tokens",
    "kallsyms_at",
    "name_spans",
    "parse_tokens",
    "size_of_sequences",
]

MAX_SYMBOLS = 4 << 20
"""Most symbols that are believed; Debian's kernels have 200,000."""
MAX_TOKEN = 512
"""Limit in bytes of a token, and of a name: ``KSYM_NAME_LEN``."""
NAMES_PER_MARKER = 256
TABLE_ALIGNMENTS = (1, 2, 4, 8)
_INDEX = struct.Struct("<256H")
INDEX_SIZE = _INDEX.size
_MAX_NAMES = 256 << 20
"""
Limit in bytes of all names, if each byte stands for the longest token. Debian's
kernels have 5 MB, which would be 30 MB so.
"""
_PROMOTED = b".llvm."
"""Precedes the hash in the name of a static symbol that thin LTO made global."""
_KERNEL = 1 << 63
"""Kernel addresses are in the upper half."""
_OBJECT, _FUNCTION = 1, 2
_GLOBAL, _WEAK, _UNIQUE, _UNKNOWN = 1, 2, 10, 15


def _symbol_info(letter: int) -> int:
    """Return ``st_info`` of a type as ``nm`` prints it; see :class:`SymbolRow`."""
    small = chr(letter).lower()
    kind = _OBJECT if small in "bcdgrv" else _FUNCTION if small == "t" else 0
    if letter == ord("u"):
        binding = _UNIQUE
    elif small in "vw":
        binding = _WEAK
    else:
        # Those of lower case are local most of the time, but not always.
        binding = _GLOBAL if chr(letter).isupper() else _UNKNOWN
    return binding << 4 | kind


_SYMBOL_INFO = bytes(map(_symbol_info, range(256)))


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
        markers = 4 * _number_of_markers(self.count)
        after = (self.names_end, self.markers + markers, *ends)
        places = [self.tokens.table - size - padding for padding in range(8)]
        places += [-(-end // unit) * unit for end in after for unit in TABLE_ALIGNMENTS]
        for place in dict.fromkeys(places):
            raw = self.data[place : place + size] if place >= 0 else b""
            if len(raw) == size and _is_order(raw, self.count):
                return place
        return None

    def decoded(self) -> Iterator[bytes]:
        """Yield each symbol's type (a letter, as ``nm`` prints it) and name."""
        data, string = self.data, self.tokens.strings.__getitem__
        for at, end in name_spans(data, self.names, self.count, self.long_names):
            yield b"".join(map(string, data[at:end]))

    def symbols(self, offsets: int, base: int | None, place: int) -> SymbolTable:
        """
        Return all symbols.

        :param offsets: Offset of the table of addresses.
        :param base: Offset of the relative base, if there is one.
        :param place: Virtual address of the data.
        :raises FormatError: If addresses do not ascend, or names are too long or short.
        """
        read = (
            self._from_place(offsets)
            if base is None
            else self._from_base(offsets, base)
        )
        found = next(read, None)
        if found is None:
            raise FormatError(
                f"{self.source}+{offsets:#x}",
                "addresses of kallsyms that do not ascend",
            )
        addresses = found.values
        if base is None:
            addresses = array("Q", [(it + place) % (1 << 64) for it in addresses])
        stored = self.names_end - self.names
        if stored * max(map(len, self.tokens.strings)) > _MAX_NAMES:
            raise FormatError(
                f"{self.source}+{self.names:#x}",
                f"names of kallsyms that may take more than {_MAX_NAMES} bytes",
            )
        every = list(self.decoded())
        sizes = set(map(len, every))
        if not 1 < min(sizes) <= max(sizes) <= MAX_TOKEN:
            raise FormatError(
                f"{self.source}+{self.names:#x}",
                f"names of kallsyms of {min(sizes)} to {max(sizes)} bytes, "
                f"expected 2 to {MAX_TOKEN}",
            )
        names = b"".join([name[1:] + b"\0" for name in every])
        info = bytes([name[0] for name in every]).translate(_SYMBOL_INFO)
        return SymbolTable(names, info, addresses, array("I"))

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
        if start != at or len(string) > MAX_TOKEN:
            break
        at += len(string) + 1
    else:
        if len(strings) == len(starts) and at <= len(table):
            return strings
    raise FormatError(source, "the index of kallsyms' tokens does not agree with them")


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


def kallsyms_at(
    data: bytes, names: int, num_syms: int, table: int, index: int, source: str
) -> Kallsyms:
    """
    Return the kallsyms whose tables are known.

    :param names: Offset of the names; the markers follow them.
    :param num_syms: Offset of the number of symbols.
    :param table: Offset of the tokens.
    :param index: Offset of the tokens' index.
    :raises FormatError: If the tables do not agree with each other.
    """
    strings = parse_tokens(data[index : index + INDEX_SIZE], data[table:], source)
    count = int.from_bytes(data[num_syms : num_syms + 4], "little")
    if not 0 < count <= MAX_SYMBOLS:
        raise FormatError(f"{source}+{num_syms:#x}", f"{count} symbols in kallsyms")
    # Linux kernel commit 73bbb94466fd ("kallsyms: support "big" kernel symbols") (in
    # v6.1) cannot be seen but by its effect, and distributions have it in older ones.
    for long_names in (True, False):
        expected, end = _walk(data, names, count, long_names)
        if expected is None:
            continue
        for alignment in TABLE_ALIGNMENTS:
            markers = -(-end // alignment) * alignment
            if _words(data, "I", markers, _number_of_markers(count)) == expected:
                tokens = Tokens(table, index, strings)
                return Kallsyms(
                    data, source, tokens, num_syms, count, names, end, markers,
                    long_names,
                )  # fmt: skip
    raise FormatError(
        f"{source}+{names:#x}", "names of kallsyms that do not agree with their markers"
    )


def name_spans(
    data: bytes, names: int, count: int, long_names: bool
) -> Iterator[tuple[int, int]]:
    """
    Yield where the bytes of each name begin and end, as long as *data* has them.

    :param names: Offset of the names.
    :param long_names: Whether a length of 128 or more takes two bytes.
    """
    at, last = names, len(data) - 1
    for _ in range(count):
        if at >= last:
            return
        size = data[at]
        at += 1
        if size & 0x80 and long_names:
            size = size & 0x7F | data[at] << 7
            at += 1
        end = at + size
        if not size or end > last + 1:
            return
        yield at, end
        at = end


def _walk(
    data: bytes, names: int, count: int, long_names: bool
) -> tuple[array[int] | None, int]:
    """Return what the markers are, if all names are there; and where names end."""
    markers, end, number = array("I"), names, 0
    for _, after in name_spans(data, names, count, long_names):
        if not number % NAMES_PER_MARKER:
            markers.append(end - names)
        end = after
        number += 1
    return markers if number == count else None, end


def _number_of_markers(count: int) -> int:
    return -(-count // NAMES_PER_MARKER)
