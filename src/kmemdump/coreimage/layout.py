# SPDX-License-Identifier: GPL-2.0-or-later
"""
Lay out a core image so that each debugger finds everything in it.

Each range of physical memory is in the file once; each of its virtual addresses has a
PT_LOAD of its own that points there. crash reads by physical address (the first PT_LOAD
that has it), gdb by virtual address.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kmemdump.formats.elf import (
    PF_R,
    PF_W,
    PF_X,
    PT_LOAD,
    PT_NOTE,
    ProgramHeader,
    header_size,
)
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import (
    Alias,
    Extent,
    Range,
    clip,
    intersect,
    merge,
    round_up,
    subtract,
)

__all__ = ["MAX_ZEROS", "UNNAMED", "CoreLayout", "lay_out"]

UNNAMED = 1 << 63
"""
Added to the physical address of memory that has no virtual address.

No kernel's pointer leads there: the sum is neither in the lower nor in the upper half
of an address space. With 0, a debugger could read at NULL.
"""

MAX_ZEROS = 64 << 10
"""Most zeros in a file, in bytes; all memory that is zero shares them."""


class CoreLayout(NamedTuple):
    """The parts of a core image."""

    headers: Sequence[ProgramHeader]
    notes_offset: int
    extents: Sequence[Extent]
    """The memory: sorted; offsets ascend, except those of zeros."""
    zero_offset: int
    """Offset of the zeros that all extents of zeros share."""
    size: int
    """Size of the file in bytes."""


def lay_out(
    ranges: Iterable[Range],
    notes_size: int,
    direct: Alias | None,
    aliases: Iterable[Alias],
    zeros: Iterable[Range] = (),
) -> CoreLayout:
    """
    Lay out a core image.

    :param ranges: The physical memory to include.
    :param notes_size: Size of all notes together in bytes.
    :param direct: The direct map, if the kernel has one.
    :param aliases: Other virtual addresses; their memory need not be in *ranges*.
    :param zeros: The part of *ranges* that holds only zeros, stored once in the file.
    """
    memory = merge(ranges)
    empty = set(_cut(intersect(memory, zeros)))
    pieces = sorted([*subtract(memory, empty), *empty])
    # Split where they are not contiguous in the file.
    names = clip(_name(memory, direct, aliases), pieces)
    notes_offset = header_size(1 + len(names))
    offset = notes_offset + notes_size
    places: dict[Range, int] = {}
    for item in pieces:
        if item not in empty:
            # Whole pages can be mapped; smaller ranges waste no room.
            offset = round_up(offset, _alignment(item))
            places[item] = offset
            offset += item.size
    zero_offset = offset
    if empty:
        zero_offset = round_up(offset, PAGE_SIZE)
        offset = zero_offset + max(item.size for item in empty)
    extents = [
        Extent(item.start, item.size, places.get(item, zero_offset)) for item in pieces
    ]
    starts = [item.start for item in pieces]
    headers = [ProgramHeader(PT_NOTE, 0, notes_offset, 0, 0, notes_size, notes_size, 4)]
    for virtual, physical, size in names:
        extent = extents[bisect_right(starts, physical) - 1]
        headers.append(
            ProgramHeader(
                type=PT_LOAD,
                flags=PF_R | PF_W | PF_X,
                offset=extent.offset + physical - extent.address,
                vaddr=virtual,
                paddr=physical,
                filesz=size,
                memsz=size,
                # With an aligned p_align and an aligned p_offset, crash takes the
                # file for a dump of diskdump or netdump, not of kdump.
                align=0,
            )
        )
    # crash takes the offset of the first PT_LOAD for the size of all headers.
    first = min(range(1, len(headers)), key=lambda i: headers[i].offset, default=0)
    if first:
        headers.insert(1, headers.pop(first))
    return CoreLayout(headers, notes_offset, extents, zero_offset, offset)


def _cut(zeros: Iterable[Range]) -> list[Range]:
    """Cut ranges of zeros into parts that can share one extent."""
    return [
        Range(start, min(MAX_ZEROS, item.end - start))
        for item in zeros
        for start in range(item.start, item.end, MAX_ZEROS)
    ]


def _name(
    memory: Sequence[Range], direct: Alias | None, aliases: Iterable[Alias]
) -> list[Alias]:
    """
    Return the virtual address of each range: one range may have several.

    Those of the direct map come first: crash finds most of its memory there.
    """
    mapped = clip([direct], memory) if direct is not None else []
    others = set(clip(aliases, memory))
    named = (Range(it.physical, it.size) for it in (*mapped, *others))
    unnamed = (
        Alias(UNNAMED | it.start, it.start, it.size) for it in subtract(memory, named)
    )
    return [*mapped, *unnamed, *sorted(others)]


def _alignment(item: Range) -> int:
    both = item.start | item.size | PAGE_SIZE
    return both & -both
