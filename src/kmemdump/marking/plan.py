# SPDX-License-Identifier: GPL-2.0-or-later
"""
Plan the regions in a firmware's table of a few hundred rows.

A kernel's areas are scattered over more ranges than the table has rows. Neighbouring
ranges share a row, with the memory between them as extra bytes. A plan has the fewest
possible extra bytes. Areas are tried in order of importance; an area that would cost
too many extra bytes is left out, and the next areas are tried.

Regions that the kernel's own drivers marked keep their names, so each has its own row.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kmemdump.marking.mark import AreaResult, Marking
from kmemdump.memory.ranges import (
    Range,
    Region,
    fit,
    merge,
    round_down,
    round_up,
    subtract,
    total,
)
from kmemdump.memory.reading import block_ranges
from kmemdump.memory.spans import BLOCK_SIZE

__all__ = ["DEFAULT_EXTRA", "DESCRIPTION", "Plan", "PlannedArea", "plan"]

DESCRIPTION = 2
"""Rows for the two regions that describe the dump."""
DEFAULT_EXTRA = 16 << 20
"""Extra bytes that a plan may have."""


@dataclass(frozen=True, slots=True)
class PlannedArea:
    """How an area fits into a plan."""

    result: AreaResult
    size: int
    """Bytes that it adds to the areas before it, without extra bytes."""
    extra: int
    """
    Extra bytes that it adds to the plan; negative if it lies between other areas.
    """
    left_out: str | None = None
    """Why it is left out, if it is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Regions that cover the areas that fit."""

    capacity: int
    """Number of regions that there is room for."""
    areas: tuple[PlannedArea, ...]
    """All that were selected, in their order."""
    regions: tuple[Region, ...]
    """By address; a registry gives them ids."""
    extra: int
    """Bytes in the regions that no area needs."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(region.size for region in self.regions)

    @property
    def left_out(self) -> list[PlannedArea]:
        """The areas that do not fit."""
        return [area for area in self.areas if area.left_out is not None]


def plan(
    marking: Marking,
    capacity: int,
    within: Iterable[Range],
    *,
    most_extra: int = DEFAULT_EXTRA,
) -> Plan:
    """
    Fit the areas of *marking* into *capacity* regions.

    :param within: Memory from which extra bytes may be taken.
    :param most_extra: Most extra bytes in all.
    """
    allowed = merge(within)
    covers: list[Range] = []
    wanted: list[Range] = []
    named: list[tuple[str, Range]] = []
    owners: list[tuple[str, list[Range]]] = []
    extra = 0
    areas: list[PlannedArea] = []
    for area in marking.areas:
        ranges = subtract(
            block_ranges(area.blocks), _whole_blocks(it for _, it in area.named)
        )
        more = merge([*wanted, *ranges])
        size = total(more) - total(wanted)
        try:
            cover = fit(more, capacity - len(named) - len(area.named), allowed)
        except ValueError as error:
            areas.append(PlannedArea(area, size, 0, str(error)))
            continue
        cost = total(cover) - total(more)
        if cost > most_extra and cost > extra:
            reason = f"would take {cost - extra:,} extra bytes"
            areas.append(PlannedArea(area, size, cost - extra, reason))
            continue
        areas.append(PlannedArea(area, size, cost - extra))
        covers, wanted, extra = cover, more, cost
        named += area.named
        owners.append((area.name, ranges))
    taken: set[str] = set()
    own = [Region(0, _shorten(it, taken), at.start, at.size) for it, at in named]
    regions = sorted([*own, *_name(covers, owners, taken)], key=lambda it: it.address)
    return Plan(capacity, tuple(areas), tuple(regions), extra)


def _whole_blocks(ranges: Iterable[Range]) -> Iterator[Range]:
    """Cut ranges down to their whole blocks."""
    for item in ranges:
        start = round_up(item.start, BLOCK_SIZE)
        yield Range(start, round_down(item.end, BLOCK_SIZE) - start)


def _name(
    covers: list[Range], owners: list[tuple[str, list[Range]]], taken: set[str]
) -> Iterator[Region]:
    """Name each region after the most important area in it."""
    starts = [cover.start for cover in covers]
    names: dict[int, str] = {}
    for name, ranges in owners:
        for item in ranges:
            names.setdefault(bisect_right(starts, item.start) - 1, name)
    for i, cover in enumerate(covers):
        yield Region(0, _label(names[i], cover.start, taken), cover.start, cover.size)


def _shorten(name: str, taken: set[str]) -> str:
    """Shorten a driver's name until firmware has room for it, and make it unique."""
    plain = _STRANGE.sub("_", name)
    short, number = plain[:_NAME], 0
    while short in taken:
        number += 1
        end = str(number)
        short = plain[: _NAME - len(end)] + end
    taken.add(short)
    return short


_NAME = 8
_STRANGE = re.compile(r"[^A-Za-z0-9_]")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PLACE = 5
"""Digits of a place; with units of 512 bytes, they repeat after 30 GiB."""


def _label(area: str, address: int, taken: set[str]) -> str:
    """
    Make a name of 8 characters, the most that firmware's file names have room for.

    The name encodes the region's place, so it stays the same when others come and go.
    Two regions with one name would share one file.
    """
    place = address >> 9
    while True:
        number, digits = place, ""
        for _ in range(_PLACE):
            number, digit = divmod(number, len(_DIGITS))
            digits = _DIGITS[digit] + digits
        name = f"{area[:3].ljust(3, '_')}{digits}"
        if name not in taken:
            taken.add(name)
            return name
        place += 1
