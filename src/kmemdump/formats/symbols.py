# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's table of symbols: names, addresses, kinds, and sizes if known."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

__all__ = ["SymbolRow", "SymbolTable", "join_columns", "make_symbols"]

_MAX_SIZE = 1 << 20
"""Most bytes up to the next symbol that are taken for a symbol's own."""
_MAX_FOUND = 4096
"""Most names of which the result of a look-up is kept."""
_MAX_BACK = 64
"""Most symbols to look at for one that spans others."""


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

    names: bytes
    """The name of each, with a NUL behind it."""
    info: bytes
    """``st_info`` of each."""
    addresses: array[int]
    """Ascending."""
    sizes: array[int]
    """In bytes, 0 if unknown; empty if all are."""
    _offsets: array[int] = field(default_factory=lambda: array("I"), repr=False)
    """Where each name begins, filled at first use."""
    _found: dict[tuple[str, bool], list[SymbolRow]] = field(
        default_factory=dict, repr=False
    )
    """What was looked up by name before."""
    _first: dict[bytes, int] = field(default_factory=dict, repr=False)
    """Name to the first symbol that has it, filled when a new name is looked up."""
    _repeated: dict[bytes, list[int]] = field(default_factory=dict, repr=False)
    """The same of names that several symbols have: to all of them."""

    def __len__(self) -> int:
        return len(self.addresses)

    def __iter__(self) -> Iterator[SymbolRow]:
        """Iterate over the rows as they are stored."""
        sizes = self.sizes or array("I", bytes(4 * len(self)))
        for name, address, info, size in zip(
            self._split(), self.addresses, self.info, sizes, strict=True
        ):
            yield SymbolRow(address, name.decode("utf-8", "replace"), info, size)

    def row(self, index: int) -> SymbolRow:
        """Return a symbol; a size that is unknown ends where the next one begins."""
        if not self._offsets:
            lengths = (len(name) + 1 for name in self._split())
            self._offsets.extend(accumulate(lengths, initial=0))
        begin, end = self._offsets[index], self._offsets[index + 1] - 1
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
            found = [self.row(index) for index in self._indices(name, one)]
            if len(self._found) < _MAX_FOUND:
                self._found[name, one] = found
        return found

    def _indices(self, name: str, one: bool) -> Sequence[int]:
        raw = name.encode("utf-8", "replace")
        if not self._first:
            self._fill_index()
        if not one and raw in self._repeated:
            return self._repeated[raw]
        return [self._first[raw]] if raw in self._first else []

    def _fill_index(self) -> None:
        names = self._split()
        # Of equal names, the first one stays.
        backwards = zip(reversed(names), range(len(names) - 1, -1, -1), strict=True)
        self._first.update(backwards)
        last = dict(zip(names, range(len(names)), strict=True))
        first = self._first.items()
        self._repeated.update((it, []) for it, index in first if last[it] != index)
        for index, name in enumerate(names):
            if name in self._repeated:
                self._repeated[name].append(index)

    def names_with(self, characters: str) -> Iterator[str]:
        """Yield the names that have one of *characters*."""
        wanted = characters.encode()
        for name in self._split():
            if any(byte in name for byte in wanted):
                yield name.decode("utf-8", "replace")

    def containing(self, address: int) -> list[SymbolRow]:
        """Return the symbols that contain an address: those that start last."""
        end = bisect_right(self.addresses, address)
        for _ in range(_MAX_BACK):
            if end == 0:
                break
            start = bisect_left(self.addresses, self.addresses[end - 1])
            rows = [self.row(index) for index in range(start, end)]
            found = [row for row in rows if address < row.address + row.size]
            if found or not self.sizes:
                return found
            end = start
        return []

    def forget_index(self) -> None:
        """Free what look-ups of new names need: three quarters of the memory."""
        self._first = {}
        self._repeated = {}

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
        names = self.names.split(b"\0")
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
