# SPDX-License-Identifier: GPL-2.0-or-later
"""
Find out where pieces belong that nobody told the address of.

Files named ``md_Klog.BIN`` are all that some tools leave. The ELF header has addresses
and sizes, and in the downstream form names; VMCOREINFO has the addresses of some
variables, and their names start like those of files. A piece that could be several
regions is not placed: a wrong place is worse than none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence, Set

from kmemdump.arch.architecture import image_address
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.firmware_dumps.fragments import Piece
from kmemdump.firmware_dumps.headers import Headers
from kmemdump.firmware_dumps.printk_ring import (
    LABEL,
    STATIC,
    array_address,
    pointer_in,
    ring_address,
)
from kmemdump.formats.elfheader import HeaderEntry
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["identify"]

_SYMBOL = re.compile(r"SYMBOL\(([A-Za-z0-9_.]+)\)")
_LABEL = 8
"""Characters of a label that the kernel's series puts into a name."""


def identify(
    pieces: Sequence[Piece], headers: Headers, problems: list[str]
) -> list[Piece]:
    """
    Give an address to each piece that can be identified.

    :param problems: Those that cannot be are added here.
    :return: The pieces that are memory; without an address if they have no place.
    """
    telling = {id(piece) for piece in headers.pieces}
    work = _Identifying(headers)
    found: list[Piece] = []
    waiting: list[Piece] = []
    for piece in pieces:
        if piece.address is not None:
            found.append(piece)
        else:
            waiting.append(piece)
    work.take_at({piece.address for piece in found})
    names = {piece.name for piece in waiting}
    bare = sum(entry.name in names for entry in work.free)
    work.numbered = True
    work.numbered = sum(work.file_of(entry) in names for entry in work.free) > bare
    for step in (
        work.by_name,
        work.by_symbol,
        work.by_contents,
        work.by_pointer,
        work.by_size,
    ):
        work.sizes = Counter(_padded(piece.store.size) for piece in waiting)
        sized = step == work.by_size
        claims = [
            None if sized and id(piece) in telling else step(piece) for piece in waiting
        ]
        rest = []
        for piece, entry in zip(waiting, claims, strict=True):
            if entry is None or claims.count(entry) > 1:
                rest.append(piece)
                continue
            work.take(entry, piece)
            found.append(piece._replace(address=entry.paddr, size=entry.size))
        waiting = rest
    for piece in waiting:
        if id(piece) in telling:
            continue  # It needs no place: mostly it has none.
        address = work.in_image(piece)
        if address is not None:
            found.append(piece._replace(address=address))
            continue
        problems.append(
            f"{piece.name} ({piece.store.size} bytes) is not placed: nothing tells "
            "where it belongs"
        )
    return found


class _Identifying:
    def __init__(self, headers: Headers) -> None:
        self.free = list(headers.entries)
        """Places that have no piece yet."""
        self.numbered = False
        """Whether files have the number of a region behind its name."""
        self.sizes: Counter[int] = Counter()
        """How many pieces without a place have each size."""
        self._by_symbol: dict[int, list[str]] = {}
        self._prb: int | None = None
        self._rings: dict[str | None, Piece] = {}
        self._info = headers.vmcoreinfo
        self._symbols = _symbols(headers.vmcoreinfo)
        for name, address in self._symbols.items():
            self._by_symbol.setdefault(address, []).append(name)

    def take_at(self, addresses: Set[int | None]) -> None:
        """Remember that places have pieces."""
        self.free = [entry for entry in self.free if entry.paddr not in addresses]

    def take(self, entry: HeaderEntry, piece: Piece) -> None:
        """Give a place to a piece."""
        self.free.remove(entry)
        if entry.vaddr == self._symbols.get("prb"):
            self._prb = pointer_in(piece)
        elif _plain(piece.name) == LABEL:
            static = entry.vaddr == self._symbols.get(STATIC)
            self._rings[STATIC if static else None] = piece

    def by_name(self, piece: Piece) -> HeaderEntry | None:
        """The ELF header has the name, or name and number, once."""
        named = [entry for entry in self.free if self.file_of(entry) == piece.name]
        return named[0] if len(named) == 1 else None

    def file_of(self, entry: HeaderEntry) -> str | None:
        """Return what the file of a place would be named."""
        return f"{entry.name}{entry.id}" if self.numbered else entry.name

    def by_symbol(self, piece: Piece) -> HeaderEntry | None:
        """VMCOREINFO says which variable is at the virtual address of a place."""
        label = _plain(piece.name)
        fitting = [
            entry
            for entry in self.free
            if _has_room(entry, piece)
            and any(
                _is_label(label, name) for name in self._by_symbol.get(entry.vaddr, ())
            )
        ]
        return fitting[0] if len(fitting) == 1 else None

    def by_contents(self, piece: Piece) -> HeaderEntry | None:
        """One of the two log rings, whose names and sizes are the same."""
        if self._info is None or _plain(piece.name) != LABEL:
            return None
        address = ring_address(piece, self._info, self._prb)
        fitting = [entry for entry in self.free if entry.vaddr == address]
        return fitting[0] if len(fitting) == 1 else None

    def by_pointer(self, piece: Piece) -> HeaderEntry | None:
        """One of the arrays that a log ring points to."""
        if self._info is None:
            return None
        address = array_address(_plain(piece.name), self._info, self._rings)
        fitting = [
            entry
            for entry in self.free
            if entry.vaddr == address and _has_room(entry, piece)
        ]
        return fitting[0] if len(fitting) == 1 else None

    def by_size(self, piece: Piece) -> HeaderEntry | None:
        """There is one place of that size, and one piece."""
        size = _padded(piece.store.size)
        fitting = [entry for entry in self.free if _padded(entry.size) == size]
        return fitting[0] if len(fitting) == 1 and self.sizes[size] == 1 else None

    def in_image(self, piece: Piece) -> int | None:
        """Without an ELF header: a variable that VMCOREINFO has the address of."""
        label = _plain(piece.name)
        names = [name for name in self._symbols if _is_label(label, name)]
        if self._info is None or len(names) != 1 or self.free:
            return None
        try:
            return image_address(self._info, self._symbols[names[0]])
        except (FormatError, NotCapturedError):
            return None


def _symbols(info: VmcoreInfo | None) -> dict[str, int]:
    symbols = {}
    for key in info.values if info is not None else ():
        match = _SYMBOL.fullmatch(key)
        if match and info is not None:
            try:
                symbols[match[1]] = info.symbol(match[1])
            except FormatError:
                continue
    return symbols


def _plain(name: str) -> str:
    """Return the label: without the K, and without the number at its end."""
    return re.sub(r"\d+$", "", name.removeprefix("K"))


def _is_label(label: str, symbol: str) -> bool:
    cut = symbol.lstrip("_")[:_LABEL]
    return len(label) > 1 and label.lstrip("_") in (cut, symbol[:_LABEL].lstrip("_"))


def _has_room(entry: HeaderEntry, piece: Piece) -> bool:
    # It may be truncated: what is there belongs here nevertheless.
    return _padded(piece.store.size) <= _padded(entry.size)


def _padded(size: int) -> int:
    return size + 3 & ~3
