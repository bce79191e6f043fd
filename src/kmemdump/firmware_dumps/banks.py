# SPDX-License-Identifier: GPL-2.0-or-later
"""
Files of all memory without a list of their addresses: DDRCS0_0.BIN, DDRCS1_0.BIN.

The kernel in one of them is found as in the process of a virtual machine monitor, and
proves that file's address; links of its lists prove those of the others. Its page
table may be in another file: then the files are tried one behind the other, and those
count to which links lead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path

from kmemdump.errors import KmemdumpError, NotCapturedError
from kmemdump.firmware_dumps.fragments import (
    FileContents,
    Fragment,
    OpenFiles,
    label_of,
)
from kmemdump.kernel_search.links import count_true, find_links
from kmemdump.kernel_search.placement import (
    Placement,
    find_placements,
    place_further,
)
from kmemdump.memory.physical import ExtentMemory
from kmemdump.memory.placed import PlacedMemory
from kmemdump.memory.ranges import Extent

__all__ = ["find_banks", "place_banks"]

_BANK = re.compile(r"DDR(?:CS)?\w*\.BIN", re.IGNORECASE)
_APART = 1 << 44
"""Bytes between the files in the memory that is searched: no two of them touch."""
_MAX_BANKS = 256
_LEAST_LINKS = 16
"""Least links that must be true in a file whose place is only likely."""
_PAGES = 16384
"""Pages that are searched for what leads to the other files."""


def find_banks(sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the files of all memory among those of a folder, and their sizes."""
    names = sorted(name for name in sizes if _BANK.fullmatch(name) and sizes[name])
    return {name: sizes[name] for name in names[:_MAX_BANKS]}


class _Banks(ExtentMemory):
    """
    The files, at addresses that say nothing.

    :param apart: Bytes between the starts of two files; None if each follows the last.
    """

    outlives_process = True

    def __init__(
        self,
        files: OpenFiles,
        folder: Path,
        banks: Mapping[str, int],
        apart: int | None,
    ) -> None:
        ends = accumulate(banks.values(), initial=0)
        self.places = [
            Extent(end if apart is None else i * apart, size, i)
            for i, (end, size) in enumerate(zip(ends, banks.values(), strict=False))
        ]
        super().__init__(self.places, str(folder))
        self._paths = [os.path.join(folder, name) for name in banks]
        self._files = files

    def _read_at(self, extent: Extent, skip: int, count: int) -> bytes:
        data = self._files.read(self._paths[extent.offset], skip, count)
        if not data:
            raise NotCapturedError(f"{self._paths[extent.offset]} has become shorter")
        return data

    def close(self) -> None:
        """Do nothing: the files are closed by their owner."""

    def fragments(self, extents: Sequence[Extent]) -> Iterator[Fragment]:
        """Yield the parts of files that are at physical addresses."""
        for item in extents:
            for place in self.places:
                start = max(item.offset, place.address)
                end = min(item.offset + item.size, place.address + place.size)
                if start < end:
                    path = self._paths[place.offset]
                    skip, size = start - place.address, end - start
                    contents = FileContents(self._files, path, skip, size)
                    address = item.address + start - item.offset
                    name = label_of(os.path.basename(path))
                    yield Fragment(name, contents, address, size)


def place_banks(
    files: OpenFiles, folder: Path, banks: Mapping[str, int], problems: list[str]
) -> Sequence[Fragment]:
    """
    Find the addresses of the files that a kernel proves.

    :param problems: A line is added for each file whose address is not known.
    :return: None of them if there is no kernel, or if there are several.
    """
    fragments: list[Fragment] = []
    for apart in (_APART, None):
        host = _Banks(files, folder, banks, apart)
        starts = [item.address for item in host.places]
        try:
            found = list(islice(find_placements(host, starts, str(folder)), 2))
            if len(found) == 1 and apart is not None:
                placed = place_further(found[0], host, _PAGES)
                fragments = list(host.fragments(placed.extents))
            elif len(found) == 1:
                fragments = list(_linked(found[0], host))
        except KmemdumpError:
            continue
        if fragments:
            break
    if fragments:
        held = {item.name for item in fragments}
        problems.extend(
            f"{name} has no address, and nothing proves one: it is left out"
            for name in banks
            if label_of(name) not in held
        )
    return fragments


def _linked(found: Placement, host: _Banks) -> Iterator[Fragment]:
    """Yield the files that have the kernel's image, or to which its links lead."""
    memory = PlacedMemory(host, found.extents)
    direct = found.arch.direct_map_in(found.info, memory)
    if direct is None:
        return
    links = list(find_links(memory, direct, _PAGES))
    image = found.arch.image_address(found.info, found.info.symbol("init_uts_ns"))
    for item in host.fragments(found.extents):
        assert item.address is not None
        where = range(item.address, item.address + item.contents.size)
        mine = [link for link in links if link.physical in where]
        if image in where or count_true(mine, memory) >= _LEAST_LINKS:
            yield item
