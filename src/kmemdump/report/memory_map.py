# SPDX-License-Identifier: GPL-2.0-or-later
"""Part of a report: which memory was captured, out of all that there was, by area."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kmemdump.coreimage import Manifest
from kmemdump.memory.ranges import Range, intersect, merge, subtract, total
from kmemdump.report.records import MemoryMap, Portion, Span

__all__ = ["Cell", "Row", "draw_map", "map_memory"]

_PACKED = "symbols"
"""The area that a core image keeps compressed, so that it has no regions."""
_REST = "other"
_MOST_AREAS = 24
"""More than these are not told apart: a firmware's regions have any names."""


def map_memory(
    manifest: Manifest | None, held: Sequence[Range], ram: Iterable[Range]
) -> MemoryMap | None:
    """
    Find out which area each piece of memory was captured for.

    :param held: All memory that was captured.
    :param ram: The memory that the kernel had.
    """
    if not held:
        return None
    named: dict[str, list[Range]] = {}
    for region in manifest.regions if manifest else ():
        # The registry's names are AREA@ADDRESS; the firmware's are not.
        area = region.name.partition("@")[0]
        if area not in named and len(named) >= _MOST_AREAS:
            area = _REST
        named.setdefault(area, []).append(Range(region.address, region.size))
    portions = []
    rest = merge(held)
    for area, ranges in named.items():
        here = intersect(rest, ranges)
        rest = subtract(rest, here)
        portions.append(_portion(area, here))
    if rest:
        areas = manifest.areas if manifest else ()
        packed = any(area.name == _PACKED for area in areas)
        portions.append(_portion(_PACKED if packed else _REST, rest))
    return MemoryMap(tuple(Span(r.start, r.size) for r in ram), tuple(portions))


def _portion(area: str, ranges: Sequence[Range]) -> Portion:
    spans = tuple(Span(item.start, item.size) for item in ranges)
    return Portion(area, total(ranges), spans)


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of a drawing: memory of which something was captured."""

    column: int
    address: int
    portion: int
    """The portion that has most of it: its index."""
    bytes: int
    """Captured, of all portions."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a drawing: consecutive memory, drawn in cells of the same size."""

    address: int
    columns: int
    """Cells in it for which there is memory."""
    cells: tuple[Cell, ...]


def draw_map(map: MemoryMap, *, columns: int, rows: int) -> tuple[int, list[Row]]:
    """
    Make a drawing of memory.

    :param columns: Cells in a row.
    :param rows: About how many rows there may be.
    :return: The bytes of a cell, and the rows.
    """
    spans = map.ram or tuple(span for part in map.portions for span in part.spans)
    ranges = merge(Range(span.address, span.size) for span in spans)
    size = 4096
    while sum(-(-item.size // (size * columns)) for item in ranges) > rows:
        size *= 2
        # Close what is smaller than a cell: a PC's first megabyte has such a hole.
        ranges = _close(ranges, size)
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


def _close(ranges: Sequence[Range], gap: int) -> list[Range]:
    closed: list[Range] = []
    for item in ranges:
        if closed and item.start - closed[-1].end <= gap:
            start = closed[-1].start
            closed[-1] = Range(start, item.end - start)
        else:
            closed.append(item)
    return closed


def _fill(
    map: MemoryMap, drawn: Sequence[Range], size: int
) -> dict[int, tuple[int, int]]:
    """Return of each cell the portion that has most of it, and the bytes of all."""
    counts: dict[int, Counter[int]] = {}
    for number, portion in enumerate(map.portions):
        spans = (Range(span.address, span.size) for span in portion.spans)
        # No more than is drawn: a file may claim to hold any number of bytes.
        for item in intersect(spans, drawn):
            for at in range(item.start // size, -(-item.end // size)):
                inside = min(item.end, (at + 1) * size) - max(item.start, at * size)
                counts.setdefault(at, Counter())[number] += inside
    return {
        at: (cell.most_common(1)[0][0], cell.total()) for at, cell in counts.items()
    }
