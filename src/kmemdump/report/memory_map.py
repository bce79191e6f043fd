# SPDX-License-Identifier: GPL-2.0-or-later
"""Section of a report: the memory that was captured, by area, and all RAM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kmemdump.coreimage import Manifest
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import Range, intersect, merge, subtract, total
from kmemdump.report.records import AreaMemory, MemoryMap, MemoryRange

__all__ = ["Cell", "Row", "draw_map", "map_memory"]

_PACKED = "symbols"
"""The area that a core image keeps compressed, without regions."""
_REST = "other"
_MAX_RANGES = 1 << 16
"""Ranges in the map; if there are more, neighbours are joined."""
_MAX_AREAS = 24
"""Further areas are merged, since firmware's regions may have any names."""


def map_memory(
    manifest: Manifest | None, held: Sequence[Range], ram: Iterable[Range]
) -> MemoryMap | None:
    """
    Find the areas for which memory was captured.

    :param held: All memory that was captured, sorted and merged.
    :param ram: The RAM that the kernel had.
    :return: ``None`` if no memory was captured.
    """
    if not held:
        return None
    named: dict[str, list[Range]] = {}
    for region in manifest.regions if manifest else ():
        # The registry's names are AREA@ADDRESS; the firmware's are not.
        area = region.name.partition("@")[0]
        if area not in named and len(named) >= _MAX_AREAS:
            area = _REST
        named.setdefault(area, []).append(Range(region.address, region.size))
    areas = []
    rest = _coarse(held)
    between = total(rest) - total(held)
    for area, ranges in named.items():
        here = intersect(rest, ranges)
        rest = subtract(rest, here)
        areas.append(AreaMemory(area, total(here), _records(here)))
    if rest:
        packed = manifest and any(it.name == _PACKED for it in manifest.areas)
        name = _PACKED if packed else _REST
        areas.append(AreaMemory(name, total(rest) - between, _records(rest)))
    return MemoryMap(_records(ram), tuple(areas))


def _coarse(held: Sequence[Range]) -> list[Range]:
    """Join neighbours until there are few: a dump of all RAM may have millions."""
    gap = 0
    while True:
        found: list[Range] = []
        for item in held:
            if found and item.start <= found[-1].end + gap:
                found[-1] = Range(found[-1].start, item.end - found[-1].start)
            else:
                found.append(item)
            if len(found) > _MAX_RANGES:
                break
        else:
            return found
        gap = max(2 * gap, PAGE_SIZE)


def _records(ranges: Iterable[Range]) -> tuple[MemoryRange, ...]:
    return tuple(MemoryRange(item.start, item.size) for item in ranges)


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a drawing: memory of which some was captured."""

    column: int
    address: int
    area: int
    """Index of the area with the most of it."""
    bytes: int
    """Bytes captured, for all areas."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a drawing: contiguous memory in cells of one size."""

    address: int
    columns: int
    """Number of its cells that are memory."""
    cells: tuple[Cell, ...]


def draw_map(map: MemoryMap, *, columns: int, rows: int) -> tuple[int, list[Row]]:
    """
    Draw the memory map.

    :param columns: Cells in a row.
    :param rows: Approximate limit on the number of rows.
    :return: The bytes of a cell, and the rows.
    """
    shown = map.ram or tuple(item for area in map.areas for item in area.ranges)
    ranges = merge(Range(item.address, item.size) for item in shown)
    size = 4096
    while sum(-(-item.size // (size * columns)) for item in ranges) > rows:
        size *= 2
        # Close gaps smaller than a cell: a PC's first megabyte has such a gap.
        ranges = merge(ranges, gap=size)
    found = _fill(map, ranges, size)
    drawing = []
    for item in ranges:
        first, last = item.start // size, -(-item.end // size)
        for start in range(first, last, columns):
            here = range(start, min(start + columns, last))
            cells = tuple(
                Cell(at - start, at * size, *found[at]) for at in here if at in found
            )
            drawing.append(Row(start * size, len(here), cells))
    return size, drawing


def _fill(
    map: MemoryMap, drawn: Sequence[Range], size: int
) -> dict[int, tuple[int, int]]:
    """Return for each cell the index of the area with the most of it, and all bytes."""
    counts: dict[int, Counter[int]] = {}
    for number, area in enumerate(map.areas):
        captured = (Range(item.address, item.size) for item in area.ranges)
        # Skip undrawn memory: a file may claim to hold any number of bytes.
        for item in intersect(captured, drawn):
            for at in range(item.start // size, -(-item.end // size)):
                inside = min(item.end, (at + 1) * size) - max(item.start, at * size)
                counts.setdefault(at, Counter())[number] += inside
    return {
        at: (cell.most_common(1)[0][0], cell.total()) for at, cell in counts.items()
    }
