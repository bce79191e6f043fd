# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's table of symbols: names, addresses, kinds, and sizes if known."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count, islice
from mmap import mmap
from operator import add
from typing import NamedTuple

__all__ = ["SymbolRow", "SymbolTable", "join_columns", "make_symbols"]

_MAX_SIZE = 1 << 20
"""Most bytes up to the next symbol that are taken for a symbol's own."""
_MAX_FOUND = 4096
"""Most names of which the result of a look-up is kept."""
_MAX_SEARCHES = 32
"""Most names that are looked for one by one; sorting takes as long as 50 of them."""
_MAX_BACK = 64
"""Most symbols to look at for one that spans others."""
_MAX_ALIASES = 1024
"""Most symbols at one address: aarch64 has one for each system call that it lacks."""


class SymbolRow(NamedTuple):
    """A symbol."""

    address: int
    name: str
    info: int = 0
    """``st_info`` of an ELF symbol: its kind, and its binding << 4 (15: unknown)."""
    size: int = 0
    """In bytes; 0 if unknown, as in kallsyms."""


@dataclass(slots=True)
class SymbolTable:
    """Symbols by address. They are many: a row is made when it is asked for."""

    names: bytes | mmap
    """The name of each, with a NUL behind it."""
    info: bytes | mmap
    """``st_info`` of each."""
    addresses: Sequence[int]
    """Ascending."""
    sizes: array[int] | memoryview[int]
    """In bytes, 0 if unknown; empty if all are."""
    offsets: Sequence[int] = field(default=(), repr=False)
    """Where each name begins, and the last one ends; found at first use."""
    by_name: Sequence[int] = field(default=(), repr=False)
    """The symbols by name, those of one name by address: see :meth:`sort`."""
    _searches: int = field(default=0, repr=False)
    """How many names were looked for without it."""
    _found: dict[tuple[str, bool], list[SymbolRow]] = field(
        default_factory=dict, repr=False
    )
    """What was looked up by name before."""

    def __len__(self) -> int:
        return len(self.addresses)

    def __iter__(self) -> Iterator[SymbolRow]:
        """Iterate over the rows as they are stored."""
        sizes = self.sizes or array("I", bytes(4 * len(self)))
        for name, address, info, size in zip(
            self._split(), self.addresses, self.info[:], sizes, strict=True
        ):
            yield SymbolRow(address, name.decode("utf-8", "replace"), info, size)

    def row(self, index: int) -> SymbolRow:
        """Return a symbol; a size that is unknown ends where the next one begins."""
        self.find_offsets()
        begin, end = self.offsets[index], self.offsets[index + 1] - 1
        name = self.names[begin:end].decode("utf-8", "replace")
        size = self._size(index)
        return SymbolRow(self.addresses[index], name, self.info[index], size)

    def find(self, name: str, *, one: bool = False) -> list[SymbolRow]:
        """
        Return the symbols with this name, by address.

        :param one: Whether the first is enough.
        """
        found = self._found.get((name, one))
        if found is None:
            indices = () if "\0" in name else self._indices(name + "\0")
            found = [self.row(index) for index in islice(indices, 1 if one else None)]
            if len(self._found) < _MAX_FOUND:
                self._found[name, one] = found
        return found

    def starting_with(self, prefix: str) -> list[SymbolRow]:
        """Return the symbols whose names begin so, by address."""
        return [self.row(index) for index in sorted(self._indices(prefix))]

    def _indices(self, prefix: str) -> Iterator[int]:
        """Yield the symbols whose names, with the NULs behind them, begin so."""
        raw = prefix.encode("utf-8", "replace")
        self.find_offsets()
        if not self.by_name and self._searches < _MAX_SEARCHES:
            self._searches += 1
            return self._search(raw)
        self.sort()
        return self._look_up(raw)

    def _look_up(self, raw: bytes) -> Iterator[int]:
        for place in range(bisect_left(self.by_name, raw, key=self._raw), len(self)):
            index = self.by_name[place]
            if not self._raw(index).startswith(raw):
                return
            yield index

    def _search(self, raw: bytes) -> Iterator[int]:
        names = self.names
        if names[: len(raw)] == raw:
            yield 0
        at = names.find(b"\0" + raw)
        while 0 <= at < len(names) - 1:
            yield bisect_left(self.offsets, at + 1)
            at = names.find(b"\0" + raw, at + 1)

    def _raw(self, index: int) -> bytes:
        return self.names[self.offsets[index] : self.offsets[index + 1]]

    def sort(self) -> None:
        """Make look-ups by name fast, also in a file that is mapped."""
        self.find_offsets()
        if not self.by_name:
            names = self._split()
            order = sorted(range(len(names)), key=names.__getitem__)
            self.by_name = array("I", order)

    def find_offsets(self) -> None:
        """Find where each name begins, unless that is known."""
        if not self.offsets:
            ends = accumulate(map(len, self._split()), initial=0)
            self.offsets = array("I", map(add, ends, count()))  # A NUL behind each.

    def containing(self, address: int) -> list[SymbolRow]:
        """Return the symbols that contain an address: those that start last."""
        end = bisect_right(self.addresses, address)
        for _ in range(_MAX_BACK):
            if end == 0:
                break
            start = bisect_left(self.addresses, self.addresses[end - 1])
            start = max(start, end - _MAX_ALIASES)
            rows = [self.row(index) for index in range(start, end)]
            found = [row for row in rows if address < row.address + row.size]
            if found or not self.sizes:
                return found
            end = start
        return []

    def _size(self, index: int) -> int:
        if self.sizes and self.sizes[index]:
            return self.sizes[index]
        address = self.addresses[index]
        after = bisect_right(self.addresses, address)
        if after == len(self.addresses):
            return 0
        size = self.addresses[after] - address
        return size if size <= _MAX_SIZE else 0  # Memory without symbols is between.

    def _split(self) -> list[bytes]:
        names = self.names[:].split(b"\0")
        names.pop()  # Behind the last NUL.
        return names


def make_symbols(rows: Iterable[SymbolRow]) -> SymbolTable:
    """
    Make a table.

    :param rows: In any order; those with the same address stay in their order. A name
        with a NUL, or an address that is not within 64 bits, is left out.
    """
    kept = [row for row in rows if 0 <= row.address < 1 << 64 and "\0" not in row.name]
    kept.sort(key=lambda row: row.address)
    sizes = [min(row.size, 0xFFFFFFFF) for row in kept]
    return join_columns(
        [row.name for row in kept],
        bytes(row.info & 0xFF for row in kept),
        array("Q", [row.address for row in kept]),
        array("I", sizes if any(sizes) else []),
    )


def join_columns(
    names: Iterable[str], info: bytes, addresses: array[int], sizes: array[int]
) -> SymbolTable:
    """Make a table of columns that are by address; faster than of rows."""
    text = "".join([f"{name}\0" for name in names])
    return SymbolTable(text.encode("utf-8", "replace"), info, addresses, sizes)
