# SPDX-License-Identifier: GPL-2.0-or-later
"""
Find the addresses of fragments that come without one.

Some tools leave only files named ``md_Klog.BIN``. The ELF header has addresses and
sizes, and in the downstream form names; VMCOREINFO has the addresses of some variables,
and their names start like those of files. A fragment that could be one of several
regions gets no address: a wrong one is worse than none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence, Set
from contextlib import suppress

from kmemdump.arch.architecture import image_address
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.firmware_dumps.fragments import Fragment
from kmemdump.firmware_dumps.headers import Headers
from kmemdump.firmware_dumps.printk_fragments import (
    LABEL,
    STATIC,
    array_address,
    pointer_in,
    ring_address,
)
from kmemdump.formats.elfheader import HeaderEntry
from kmemdump.memory.ranges import round_up
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["identify"]

_SYMBOL = re.compile(r"^SYMBOL\(([A-Za-z0-9_.]+)\)$", re.MULTILINE)
_MAX_PAIRS = 4_000_000
"""Of files and regions, each of which is looked at; a device has some hundreds."""
_LABEL = 8
"""Characters of a label that the kernel's series puts into a name."""


def identify(
    fragments: Sequence[Fragment], headers: Headers, problems: list[str]
) -> list[Fragment]:
    """
    Find the address of each fragment that has none.

    :param problems: A line for each fragment that cannot be identified is added here.
    :return: The fragments that have an address, or were given one.
    """
    describing = {id(fragment) for fragment in headers.fragments}
    work = _Identifying(headers)
    found = [fragment for fragment in fragments if fragment.address is not None]
    waiting = [fragment for fragment in fragments if fragment.address is None]
    work.take_at({fragment.address for fragment in found})
    if len(waiting) * len(work.free) > _MAX_PAIRS:
        problems.append(
            f"{len(waiting)} files without an address and {len(work.free)} regions "
            "without a file are too many to match"
        )
        return found
    names = {fragment.name for fragment in waiting}
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
        work.sizes = Counter(
            round_up(fragment.contents.size, 4) for fragment in waiting
        )
        sized = step == work.by_size
        claims = [
            None if sized and id(fragment) in describing else step(fragment)
            for fragment in waiting
        ]
        rest = []
        times = Counter(claims)
        for fragment, entry in zip(waiting, claims, strict=True):
            if entry is None or times[entry] > 1:
                rest.append(fragment)
                continue
            work.take(entry, fragment)
            found.append(fragment._replace(address=entry.paddr, size=entry.size))
        waiting = rest
    for fragment in waiting:
        if id(fragment) in describing:
            continue  # It needs no address, and mostly has none.
        address = work.in_image(fragment)
        if address is not None:
            found.append(fragment._replace(address=address))
            continue
        problems.append(
            f"{fragment.name} ({fragment.contents.size} bytes) is left out: its "
            "address is not known"
        )
    return found


class _Identifying:
    def __init__(self, headers: Headers) -> None:
        self.free = list(headers.entries)
        """Entries that have no fragment yet."""
        self.numbered = False
        """Whether the files' names end with the number of the region."""
        self.sizes: Counter[int] = Counter()
        """How many fragments without an address have each size."""
        self._by_symbol: dict[int, list[str]] = {}
        self._prb: int | None = None
        self._rings: dict[str | None, Fragment] = {}
        self._info = headers.vmcoreinfo
        self._symbols = _symbols(headers.vmcoreinfo)
        for name, address in self._symbols.items():
            self._by_symbol.setdefault(address, []).append(name)

    def take_at(self, addresses: Set[int | None]) -> None:
        """Remember that the entries at these addresses have fragments."""
        self.free = [entry for entry in self.free if entry.paddr not in addresses]

    def take(self, entry: HeaderEntry, fragment: Fragment) -> None:
        """Give an entry to a fragment."""
        self.free.remove(entry)
        if entry.vaddr == self._symbols.get("prb"):
            self._prb = pointer_in(fragment)
        elif _plain(fragment.name) == LABEL:
            static = entry.vaddr == self._symbols.get(STATIC)
            self._rings[STATIC if static else None] = fragment

    def by_name(self, fragment: Fragment) -> HeaderEntry | None:
        """Find the only entry of the ELF header with this name, or name and number."""
        name = fragment.name
        return _only([entry for entry in self.free if self.file_of(entry) == name])

    def file_of(self, entry: HeaderEntry) -> str | None:
        """Return the name of a file with the entry's region, without ``md_``."""
        return f"{entry.name}{entry.id}" if self.numbered else entry.name

    def by_symbol(self, fragment: Fragment) -> HeaderEntry | None:
        """Find the entry at the virtual address of a variable in VMCOREINFO."""
        label = _plain(fragment.name)
        fitting = [
            entry
            for entry in self.free
            if _has_room(entry, fragment)
            and any(
                _is_label(label, name) for name in self._by_symbol.get(entry.vaddr, ())
            )
        ]
        return _only(fitting)

    def by_contents(self, fragment: Fragment) -> HeaderEntry | None:
        """Find one of the two log rings, whose names and sizes are the same."""
        if self._info is None or _plain(fragment.name) != LABEL:
            return None
        address = ring_address(fragment, self._info, self._prb)
        return _only([entry for entry in self.free if entry.vaddr == address])

    def by_pointer(self, fragment: Fragment) -> HeaderEntry | None:
        """Find one of the arrays that a log ring points to."""
        if self._info is None:
            return None
        address = array_address(_plain(fragment.name), self._info, self._rings)
        fitting = [
            entry
            for entry in self.free
            if entry.vaddr == address and _has_room(entry, fragment)
        ]
        return _only(fitting)

    def by_size(self, fragment: Fragment) -> HeaderEntry | None:
        """Find the only entry of the size that only this fragment has."""
        size = round_up(fragment.contents.size, 4)
        fitting = [entry for entry in self.free if round_up(entry.size, 4) == size]
        return _only(fitting) if self.sizes[size] == 1 else None

    def in_image(self, fragment: Fragment) -> int | None:
        """Find, without an ELF header, a variable whose address is in VMCOREINFO."""
        label = _plain(fragment.name)
        names = [name for name in self._symbols if _is_label(label, name)]
        if self._info is None or len(names) != 1 or self.free:
            return None
        try:
            return image_address(self._info, self._symbols[names[0]])
        except (FormatError, NotCapturedError):
            return None


def _only(entries: Sequence[HeaderEntry]) -> HeaderEntry | None:
    return entries[0] if len(entries) == 1 else None


def _symbols(info: VmcoreInfo | None) -> dict[str, int]:
    symbols: dict[str, int] = {}
    if info is not None:
        for name in _SYMBOL.findall("\n".join(info.values)):
            with suppress(FormatError):
                symbols[name] = info.symbol(name)
    return symbols


def _plain(name: str) -> str:
    """Return the label: the name without the K and the number at its end."""
    return re.sub(r"\d+$", "", name.removeprefix("K"))


def _is_label(label: str, symbol: str) -> bool:
    cut = symbol.lstrip("_")[:_LABEL]
    return len(label) > 1 and label.lstrip("_") in (cut, symbol[:_LABEL].lstrip("_"))


def _has_room(entry: HeaderEntry, fragment: Fragment) -> bool:
    # A truncated fragment belongs here, too.
    return round_up(fragment.contents.size, 4) <= round_up(entry.size, 4)
