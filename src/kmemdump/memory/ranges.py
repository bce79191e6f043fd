# SPDX-License-Identifier: GPL-2.0-or-later
"""
The words for memory: range, extent, alias, region; and how to combine them.

A range is physical memory. An extent is a range with its place in a file, an alias is
a range with its virtual address, a region is a range that is registered.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from operator import eq
from typing import NamedTuple, overload

__all__ = [
    "ADDRESS_SPACE",
    "Alias",
    "Extent",
    "PackedRanges",
    "Range",
    "Region",
    "align",
    "clip",
    "fit",
    "flatten",
    "intersect",
    "merge",
    "parts_in",
    "round_down",
    "round_up",
    "subtract",
    "total",
    "unit_ranges",
]

ADDRESS_SPACE = 1 << 64
"""End of the address space in bytes: no address is as large."""


class Range(NamedTuple):
    """A contiguous range of physical memory, *start* included, *end* not."""

    start: int
    """Physical address in bytes."""
    size: int
    """Size in bytes."""

    @property
    def end(self) -> int:
        return self.start + self.size

    def __str__(self) -> str:
        return f"{self.start:#x}-{self.end:#x}"


class PackedRanges(Sequence[Range]):
    """
    Millions of ranges, sorted and apart, in 16 bytes each; a list takes 150.

    They are made into ranges when they are looked at.
    """

    def __init__(self) -> None:
        self._starts = array("Q")
        self._sizes = array("Q")

    def append(self, start: int, size: int) -> None:
        """
        Add a range behind the others.

        :raises ValueError: If it is not behind them, or empty.
        """
        if size <= 0 or (self._starts and start <= self._starts[-1] + self._sizes[-1]):
            raise ValueError(f"{size} bytes at {start:#x} do not follow the others")
        self._starts.append(start)
        self._sizes.append(size)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Range: ...

    @overload
    def __getitem__(self, index: slice) -> list[Range]: ...

    def __getitem__(self, index: int | slice) -> Range | list[Range]:
        if isinstance(index, slice):
            pairs = zip(self._starts[index], self._sizes[index], strict=True)
            return [Range(*pair) for pair in pairs]
        return Range(self._starts[index], self._sizes[index])

    def __iter__(self) -> Iterator[Range]:
        return map(Range, self._starts, self._sizes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]


class Extent(NamedTuple):
    """A range of physical memory, and its place in a file."""

    address: int
    """Physical address in bytes."""
    size: int
    """Size in bytes."""
    offset: int
    """Offset in the file, or address in a process."""


class Alias(NamedTuple):
    """A range of physical memory, and its virtual address."""

    virtual: int
    physical: int
    size: int
    """Size in bytes."""


class Region(NamedTuple):
    """One contiguous range that is registered."""

    id: int
    """Unique in its registry."""
    name: str
    address: int
    """Physical address in bytes."""
    size: int
    """Size in bytes."""
    virtual: int | None = None
    """Kernel virtual address, where one is known."""

    @property
    def range(self) -> Range:
        return Range(self.address, self.size)


def round_up(value: int, unit: int) -> int:
    """Return the next multiple of *unit* that is not below *value*."""
    return -(-value // unit) * unit


def round_down(value: int, unit: int) -> int:
    """Return the last multiple of *unit* that is not above *value*."""
    return value // unit * unit


def merge(ranges: Iterable[Range], gap: int = 0) -> list[Range]:
    """
    Sort *ranges* and join those that overlap or touch; leave out empty ones.

    :param gap: Most bytes between two ranges that are joined.
    """
    # A file waits for this after a death, with thousands of ranges.
    merged: list[Range] = []
    first = end = 0  # Of the range at hand; none yet.
    for start, size in sorted(ranges):
        if size <= 0:
            continue
        if end > first and start <= end + gap:
            end = max(end, start + size)
            continue
        if end > first:
            merged.append(Range(first, end - first))
        first, end = start, start + size
    if end > first:
        merged.append(Range(first, end - first))
    return merged


def unit_ranges(units: Iterable[int], size: int) -> list[Range]:
    """Return the merged ranges of distinct units (pages, say) of *size* bytes."""
    runs: list[list[int]] = []
    for unit in sorted(units):
        if runs and unit == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([unit, unit + 1])
    return [Range(first * size, (end - first) * size) for first, end in runs]


def intersect(left: Iterable[Range], right: Iterable[Range]) -> list[Range]:
    """Return the memory that is both in *left* and in *right*."""
    a, b = merge(left), merge(right)
    common: list[Range] = []
    i = j = 0
    while i < len(a) and j < len(b):
        a_end, b_end = a[i].end, b[j].end
        start, end = max(a[i].start, b[j].start), min(a_end, b_end)
        if start < end:
            common.append(Range(start, end - start))
        if a_end <= b_end:
            i += 1
        else:
            j += 1
    return common


def subtract(left: Iterable[Range], right: Iterable[Range]) -> list[Range]:
    """Return the memory that is in *left* and not in *right*."""
    holes = merge(right)
    rest: list[Range] = []
    at = 0  # Holes before this one end before the range at hand.
    for start, size in merge(left):
        end = start + size
        while at < len(holes) and holes[at].start < end:
            hole, hole_end = holes[at].start, holes[at].end
            if hole > start:
                rest.append(Range(start, hole - start))
            start = max(start, hole_end)
            if hole_end > end:
                break  # It goes on in the next range.
            at += 1
        if start < end:
            rest.append(Range(start, end - start))
    return rest


def align(ranges: Iterable[Range], granularity: int) -> list[Range]:
    """Widen *ranges* to multiples of *granularity* bytes, and merge them."""
    widened = []
    for item in merge(ranges):  # Merged first: an empty range must not grow.
        start = round_down(item.start, granularity)
        end = round_up(item.end, granularity)
        widened.append(Range(start, end - start))
    return merge(widened)


def fit(
    ranges: Iterable[Range], capacity: int, within: Iterable[Range] | None = None
) -> list[Range]:
    """
    Cover *ranges* with at most *capacity* ranges and the least extra bytes.

    With the ranges sorted, a cover leaves ``capacity - 1`` gaps open; it costs the
    least if these are the widest.

    :param within: Memory that extra bytes may be taken from; ``None`` for all.
    :raises ValueError: If *capacity* is too small.
    """
    merged = merge(ranges)
    if not merged or len(merged) <= capacity:
        return merged
    gaps = [Range(left.end, right.start - left.end) for left, right in pairwise(merged)]
    closed = subtract(gaps, within) if within is not None else []
    fixed = [bool(intersect([gap], closed)) for gap in gaps] if closed else []
    least = 1 + sum(fixed)
    if capacity < least:
        raise ValueError(f"{least} ranges cannot fit into {capacity} regions")
    widest = sorted(
        range(len(gaps)), key=lambda i: (not (fixed and fixed[i]), -gaps[i].size)
    )
    starts = [0, *sorted(i + 1 for i in widest[: capacity - 1])]
    ends = [*(i - 1 for i in starts[1:]), len(merged) - 1]
    return [
        Range(merged[first].start, merged[last].end - merged[first].start)
        for first, last in zip(starts, ends, strict=True)
    ]


def flatten(extents: Iterable[Extent]) -> list[Extent]:
    """
    Sort *extents*, cut off memory that an earlier one has, and join adjacent ones.

    A core image has several PT_LOADs for a page with several virtual addresses; their
    bytes are the same.
    """
    flat: list[Extent] = []
    end = 0
    for extent in sorted(extents):
        cut = max(end - extent.address, 0)
        if extent.size <= cut:
            continue
        start, offset = extent.address + cut, extent.offset + cut
        end = extent.address + extent.size
        last = flat[-1] if flat else Extent(0, 0, -1)
        if (start - last.address, offset - last.offset) == (last.size, last.size):
            flat[-1] = last._replace(size=end - last.address)
        else:
            flat.append(Extent(start, end - start, offset))
    return flat


def parts_in(item: Range, ranges: Sequence[Range]) -> Iterator[Range]:
    """
    Yield the parts of one range that are in *ranges*, of which there may be thousands.

    :param ranges: Sorted; they do not overlap.
    """
    i = max(bisect_right(ranges, (item.start, ADDRESS_SPACE)) - 1, 0)
    while i < len(ranges) and ranges[i].start < item.end:
        start = max(item.start, ranges[i].start)
        size = min(item.end, ranges[i].end) - start
        if size > 0:
            yield Range(start, size)
        i += 1


def clip(aliases: Iterable[Alias], ranges: Sequence[Range]) -> list[Alias]:
    """
    Return the parts of aliases that are in *ranges*.

    :param ranges: Sorted; they do not overlap.
    """
    # After a death, a file waits for this, with thousands of each.
    starts = [item.start for item in ranges]
    ends = [item.end for item in ranges]
    parts: list[Alias] = []
    for virtual, physical, size in aliases:
        end = physical + size
        for i in range(max(bisect_right(starts, physical) - 1, 0), len(starts)):
            if starts[i] >= end:
                break
            first, last = max(physical, starts[i]), min(end, ends[i])
            if first < last:
                parts.append(Alias(virtual + first - physical, first, last - first))
    return parts


def total(ranges: Sequence[Range]) -> int:
    """Return the number of bytes in *ranges*, which must not overlap."""
    return sum(item.size for item in ranges)
