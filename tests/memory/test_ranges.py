# SPDX-License-Identifier: GPL-2.0-or-later
"""Ranges against sets of bytes, and a cover against every other one."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.memory.ranges import (
    Alias,
    PackedRanges,
    Range,
    Region,
    align,
    clip,
    fit,
    intersect,
    merge,
    parts_in,
    subtract,
    total,
)

SPACE = 64
BRUTE = 10  # Bytes of an address space whose every subset is tried.


def ranges(space: int = SPACE, most: int = 12) -> st.SearchStrategy[list[Range]]:
    one = st.builds(
        lambda start, end: Range(min(start, end), abs(end - start)),
        st.integers(0, space),
        st.integers(0, space),
    )
    return st.lists(one, max_size=most)


def cells(items: list[Range]) -> set[int]:
    return {byte for item in items for byte in range(item.start, item.end)}


def runs(mask: int) -> int:
    return (mask & ~(mask << 1)).bit_count()


def assert_normal(items: list[Range]) -> None:
    """Sorted, not empty, and neither overlapping nor touching."""
    assert all(item.size > 0 for item in items)
    assert all(a.end < b.start for a, b in pairwise(items))


@given(ranges())
def test_merge_keeps_every_byte(items: list[Range]) -> None:
    merged = merge(items)
    assert_normal(merged)
    assert cells(merged) == cells(items)
    assert merge(merged) == merged
    assert merge(reversed(items)) == merged
    assert total(merged) == len(cells(items))


@given(ranges(), ranges())
def test_intersect_and_subtract_are_those_of_sets(
    left: list[Range], right: list[Range]
) -> None:
    common, rest = intersect(left, right), subtract(left, right)
    assert_normal(common)
    assert_normal(rest)
    assert cells(common) == cells(left) & cells(right)
    assert cells(rest) == cells(left) - cells(right)
    assert merge(common + rest) == merge(left)


@given(st.tuples(st.integers(0, SPACE), st.integers(0, SPACE)), ranges())
def test_parts_in_is_an_intersection(one: tuple[int, int], many: list[Range]) -> None:
    assert list(parts_in(Range(*one), merge(many))) == intersect([Range(*one)], many)


@given(ranges(), st.integers(1, 16))
def test_align_takes_just_the_blocks_that_are_touched(
    items: list[Range], granularity: int
) -> None:
    aligned = align(items, granularity)
    assert_normal(aligned)
    touched = {byte // granularity for byte in cells(items)}
    assert cells(aligned) == {
        block * granularity + i for block in touched for i in range(granularity)
    }


def test_align_does_not_let_an_empty_range_grow() -> None:
    assert align([Range(5, 0)], 4096) == []


@given(ranges(BRUTE, 6), st.integers(1, 6))
def test_fit_is_the_best_of_all_covers(items: list[Range], capacity: int) -> None:
    planned = fit(items, capacity)
    assert_normal(planned)
    assert len(planned) <= capacity
    assert cells(planned) >= cells(items)
    needed = sum(1 << byte for byte in cells(items))
    best = min(
        mask.bit_count()
        for mask in range(1 << BRUTE)
        if mask & needed == needed and runs(mask) <= capacity
    )
    assert total(planned) == best


@given(ranges(), st.integers(1, 20))
def test_fit_into_enough_room_adds_nothing(items: list[Range], spare: int) -> None:
    merged = merge(items)
    assert fit(items, len(merged) + spare) == merged


def test_fit_without_room() -> None:
    assert fit([], 0) == []
    assert fit([Range(3, 0)], -1) == []
    with pytest.raises(ValueError, match="1 ranges cannot fit into 0 regions"):
        fit([Range(0, 1)], 0)


@given(ranges(BRUTE, 6), ranges(BRUTE, 6), st.integers(1, 6))
def test_fit_closes_only_what_is_allowed(
    items: list[Range], allowed: list[Range], capacity: int
) -> None:
    needed = sum(1 << byte for byte in cells(items))
    free = needed | sum(1 << byte for byte in cells(allowed))
    covers = [
        mask.bit_count()
        for mask in range(1 << BRUTE)
        if mask & needed == needed and mask & ~free == 0 and runs(mask) <= capacity
    ]
    if not covers:
        with pytest.raises(ValueError, match="cannot fit into"):
            fit(items, capacity, allowed)
        return
    planned = fit(items, capacity, allowed)
    assert len(planned) <= capacity
    assert cells(planned) >= cells(items)
    assert cells(planned) <= cells(items) | cells(allowed)
    assert total(planned) == min(covers)


def test_fit_keeps_the_widest_gaps_open() -> None:
    items = [Range(0, 10), Range(12, 10), Range(1000, 10), Range(1100, 10)]
    assert fit(items, 3) == [Range(0, 22), Range(1000, 10), Range(1100, 10)]
    assert fit(items, 2) == [Range(0, 22), Range(1000, 110)]
    assert fit(items, 1) == [Range(0, 1110)]


def test_names_for_people() -> None:
    assert str(Range(0x1000, 0x20)) == "0x1000-0x1020"
    assert Region(3, "prb", 0x1000, 8).range == Range(0x1000, 8)


def test_clip():
    alias = Alias(0xFFFF_0000, 0x1000, 0x3000)
    assert clip([alias], []) == []
    assert clip([alias], [Range(0, 0x1000), Range(0x4000, 0x1000)]) == []
    assert clip([alias], [Range(0, 0x10000)]) == [alias]
    parts = [Range(0x800, 0x900), Range(0x2000, 0x10), Range(0x3F00, 0x900)]
    assert clip([alias], parts) == [
        Alias(0xFFFF_0000, 0x1000, 0x100),
        Alias(0xFFFF_1000, 0x2000, 0x10),
        Alias(0xFFFF_2F00, 0x3F00, 0x100),
    ]


def test_packed_ranges():
    packed, plain = PackedRanges(), [Range(0, 1), Range(2, 5), Range(9, 1 << 40)]
    for item in plain:
        packed.append(*item)
    assert packed == plain
    assert packed != plain[:2]
    assert [*packed] == plain
    assert (packed[1], packed[-1], packed[1:]) == (plain[1], plain[2], plain[1:])
    assert [*parts_in(Range(1, 4), packed)] == [Range(2, 3)]
    for bad in ((3, 1), (9, 1), (9 + (1 << 40), 1), (1 << 50, 0)):
        with pytest.raises(ValueError, match="do not follow"):
            packed.append(*bad)
