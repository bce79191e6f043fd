# SPDX-License-Identifier: GPL-2.0-or-later
"""
Find where in a process the physical memory of its guest is.

The process has mappings, which do not say which physical addresses they are. The kernel
does: what is believed of the map is proven by the kernel's page table, which must map
its image and all of its RAM to where they are.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from kmemdump.arch.architecture import Arch, arch_from_info
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.kernel_search.completion import complete
from kmemdump.kernel_search.contents import FoundKernel, prove, search_kernels
from kmemdump.kernel_search.finder import is_disproven
from kmemdump.kernel_search.links import (
    count_true,
    find_links,
    free_blocks,
    place_linked,
)
from kmemdump.kernel_search.notes import is_present, scan_vmcoreinfo
from kmemdump.memory.physical import PAGE_SIZE, StoredMemory
from kmemdump.memory.placed import PlacedMemory
from kmemdump.memory.ranges import ADDRESS_SPACE, Extent, Range
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["Placement", "find_placements", "place_further"]

logger = logging.getLogger(__name__)

_RESUMES = 4 << 30
"""
Where RAM goes on above the devices of 32-bit addresses, if it is in another mapping:
Firecracker, Cloud Hypervisor, crosvm.
"""
_LEAST_BELOW = 2 << 30
"""No VM has less RAM below the devices if there is some above."""
_MAX_STARTS = 256
_PAGES = 1024
"""Pages in which links are looked for, to compare maps."""
_LEAST_LINKS = 16
"""Least links that must be true in a map that is not complete."""
_MAX_OTHERS = 16
"""Most of the other mappings, the largest, that are tried there."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A kernel, and where in the process its physical memory is."""

    info: VmcoreInfo
    arch: Arch
    extents: Sequence[Extent]
    """Physical memory, with addresses in the process for offsets."""


def find_placements(
    host: StoredMemory,
    starts: Sequence[int],
    source: str,
    *,
    settled: Callable[[], bool] = bool,
) -> Iterator[Placement]:
    """
    Yield each kernel that is found, and proven, in the memory of a process.

    :param host: The memory of the process, by its addresses there.
    :param starts: Addresses at which mappings start.
    :param source: Name of the process, for messages.
    :param settled: Called if a kernel still boots: whether to pass it over.
    """
    layouts = _Layouts(host.ranges, starts)
    found = False
    for note in dict.fromkeys(scan_vmcoreinfo(host, source)):
        placement = _place_noted(note, host, layouts)
        if placement is not None:
            found = True
            yield placement
    if found:
        return
    for kernel in search_kernels(host, source, PAGE_SIZE):
        if kernel.boots and settled():
            logger.info("%s: the kernel still boots", kernel.image.source)
            continue
        placement = _place_found(kernel, host, layouts)
        if placement is not None:
            yield placement


class _Layouts:
    """The likely maps of physical memory."""

    def __init__(self, blocks: Sequence[Range], starts: Sequence[int]) -> None:
        self._blocks = blocks
        self._mapped = sorted(starts)
        # A guest's RAM starts with its mapping, and the largest are the likeliest.
        within = [
            (block, at)
            for block in blocks
            for at in starts
            if block.start <= at < block.end
        ]
        within.sort(key=lambda item: item[1] - item[0].end)
        self._starts = within[:_MAX_STARTS]

    def of(self, arch: Arch) -> Iterator[list[Extent]]:
        for block, start in self._starts:
            yield from self._from(arch, block, start)

    def _from(self, arch: Arch, block: Range, start: int) -> Iterator[list[Extent]]:
        size = block.end - start
        for extents in arch.likely_memory_maps(size):
            first = extents[0]._replace(offset=extents[0].offset + start)
            if len(extents) == 1 and _LEAST_BELOW <= size <= _RESUMES - first.address:
                for other in self._others(block):
                    yield [first, Extent(_RESUMES, other.size, other.start)]
            yield [it._replace(offset=it.offset + start) for it in extents]

    def _others(self, block: Range) -> list[Range]:
        others = [item for item in self._blocks if item != block]
        return sorted(others, key=lambda item: -item.size)[:_MAX_OTHERS]

    def around(self, place: int, physical: int) -> Iterator[list[Extent]]:
        """
        Yield maps of the memory around a place whose physical address is known.

        First the mapping alone: what is next to it may be a thread's stack.
        """
        for block in self._blocks:
            if not block.start <= place < block.end:
                continue
            inside = [it for it in self._mapped if block.start < it < block.end]
            edges = [block.start, *inside, block.end]
            after = bisect_right(edges, place)
            first = edges[after - 1]
            mapping = Range(first, edges[after] - first)
            for part in dict.fromkeys((mapping, block)):
                start = physical - (place - part.start)
                skip = max(-start, 0)
                if start + part.size <= ADDRESS_SPACE:
                    yield [Extent(start + skip, part.size - skip, part.start + skip)]


def _place_noted(
    note: VmcoreInfo, host: StoredMemory, layouts: _Layouts
) -> Placement | None:
    """Find the map that puts a kernel where its note says."""
    try:
        arch = arch_from_info(note)
    except FormatError:
        return None

    def proven() -> Iterator[Placement]:
        for extents in layouts.of(arch):
            memory = PlacedMemory(host, extents)
            if is_present(note, memory) and not is_disproven(
                note, memory, missing=True
            ):
                yield Placement(note, arch, extents)

    found = _choose(proven(), host)
    if found is None:
        return None
    return replace(found, info=complete(note, PlacedMemory(host, found.extents)))


def _place_found(
    kernel: FoundKernel, host: StoredMemory, layouts: _Layouts
) -> Placement | None:
    """Find the map with which a kernel's page table maps its image to where it is."""
    image, arch = kernel.image, kernel.arch
    virtual = image.symbol("_stext")
    place = image.place(virtual)

    def proven() -> Iterator[Placement]:
        for info in kernel.candidates():
            physical = arch.image_address(info, virtual)
            maps = [it for it in layouts.of(arch) if _place_in(it, physical) == place]
            maps += [it for it in layouts.around(place, physical) if it not in maps]
            for extents in maps:
                try:
                    if prove(kernel, info, PlacedMemory(host, extents)):
                        yield Placement(kernel.describe(info), arch, extents)
                except (FormatError, NotCapturedError) as error:
                    logger.info("%s: %s", image.source, error)

    return _choose(proven(), host)


def _choose(proven: Iterator[Placement], host: StoredMemory) -> Placement | None:
    """
    Return the right one of several maps that have the kernel's image.

    That is the first whose RAM the kernel maps, and no more. If more memory follows, in
    mappings that are yet to be found, it is the one with most links in it.
    """
    partial: list[tuple[int, Placement]] = []
    for item in proven:
        memory = PlacedMemory(host, item.extents)
        if item.arch.is_memory_map(item.info, memory):
            return item
        direct = item.arch.direct_map_in(item.info, memory)
        if direct is not None:
            links = list(find_links(memory, direct, _PAGES))
            partial.append((count_true(links, memory), item))
    true, best = max(partial, key=lambda it: it[0], default=(0, None))
    return best if true >= _LEAST_LINKS else None


def place_further(
    placement: Placement, host: StoredMemory, pages: int = 4096
) -> Placement:
    """
    Add memory that the kernel uses, and that is in mappings of its own.

    For memory that was added while the guest ran, and for further nodes of NUMA.

    :param pages: How many pages are searched for what leads there: 4096 take 0.2 s.
    """
    used = [Range(it.offset, it.size) for it in placement.extents]
    if not free_blocks(host, used):
        return placement
    memory = PlacedMemory(host, placement.extents)
    direct = placement.arch.direct_map_in(placement.info, memory)
    if direct is None:
        return placement
    links = list(find_links(memory, direct, pages))
    more = place_linked(host, placement.extents, links)
    return replace(placement, extents=[*placement.extents, *more])


def _place_in(extents: Sequence[Extent], physical: int) -> int | None:
    for item in extents:
        if item.address <= physical < item.address + item.size:
            return physical - item.address + item.offset
    return None
