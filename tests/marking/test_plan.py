# SPDX-License-Identifier: GPL-2.0-or-later
"""What is asked for, fitted into a table of a few rows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kmemdump.marking.mark import AreaResult, Marking
from kmemdump.marking.plan import Plan, plan
from kmemdump.memory.ranges import Range, intersect, subtract, total
from kmemdump.memory.reading import block_ranges
from kmemdump.memory.spans import BLOCK_SIZE

ALL = [Range(0, 1 << 40)]


def marks(**areas: set[int]) -> Marking:
    """Areas, and the blocks that each needs."""
    seen: set[int] = set()
    found = []
    for name, blocks in areas.items():
        own = frozenset(blocks - seen)
        seen |= blocks
        found.append(AreaResult(name, frozenset(blocks), own, 0.0, ()))
    return Marking(tuple(found))


def names(planned: Plan) -> list[str]:
    return [region.name for region in planned.regions]


def test_what_fits_costs_nothing() -> None:
    planned = plan(marks(kmsg={1, 2, 9}, tasks={4}), 3, ALL)
    assert (planned.extra, planned.left_out) == (0, [])
    ranges = [region.range for region in planned.regions]
    assert ranges == block_ranges({1, 2, 4, 9})
    assert [area.size for area in planned.areas] == [3 * BLOCK_SIZE, BLOCK_SIZE]


def test_neighbours_share_a_row() -> None:
    planned = plan(marks(kmsg={1, 2, 9}, tasks={4}), 2, ALL)
    assert [region.range for region in planned.regions] == block_ranges({1, 2, 3, 4, 9})
    assert planned.extra == BLOCK_SIZE
    assert [area.extra for area in planned.areas] == [0, BLOCK_SIZE]


def test_what_is_important_comes_first() -> None:
    far = {"kmsg": {1}, "tasks": {1000}, "net": {2}}
    planned = plan(marks(**far), 1, ALL, most_extra=10 * BLOCK_SIZE)
    assert [area.result.name for area in planned.left_out] == ["tasks"]
    reason = planned.left_out[0].left_out
    assert reason == f"would take {998 * BLOCK_SIZE:,} extra bytes"
    assert [region.range for region in planned.regions] == block_ranges({1, 2})
    turned = plan(
        marks(tasks={1000}, kmsg={1}, net={2}), 1, ALL, most_extra=10 * BLOCK_SIZE
    )
    assert [area.result.name for area in turned.left_out] == ["kmsg", "net"]


def test_extra_bytes_of_one_area_may_be_asked_for_by_the_next() -> None:
    planned = plan(marks(a={1, 9}, b={5}, c={2, 3, 4, 6, 7, 8}), 1, ALL)
    assert planned.extra == 0
    assert [area.extra // BLOCK_SIZE for area in planned.areas] == [7, -1, -6]


def test_rows_do_not_reach_over_a_hole() -> None:
    holed = subtract(ALL, [Range(3 * BLOCK_SIZE, 1)])
    planned = plan(marks(kmsg={1}, tasks={5}, net={6}), 1, holed)
    assert [area.left_out for area in planned.areas] == [
        None,
        "2 ranges cannot fit into 1 regions",
        "2 ranges cannot fit into 1 regions",
    ]
    assert plan(marks(kmsg={1}, tasks={5}), 2, holed).extra == 0


def test_no_room_at_all() -> None:
    planned = plan(marks(kmsg={1}), 0, ALL)
    assert planned.regions == ()
    assert planned.areas[0].left_out == "1 ranges cannot fit into 0 regions"


def test_names_say_what_and_where() -> None:
    """And stay the same when others come and go: files are named after them."""
    assert names(plan(marks(kmsg={1, 50}, tasks={9}), 3, ALL)) == [
        "kms00001",
        "tas00009",
        "kms0001e",
    ]
    assert names(plan(marks(kmsg={1}, tasks={9}), 3, ALL)) == ["kms00001", "tas00009"]
    # 36**5 blocks further on, the places repeat.
    assert names(plan(marks(kmsg={1, 1 + 36**5}), 3, ALL)) == ["kms00001", "kms00002"]


blocks = st.sets(st.integers(0, 200), min_size=1, max_size=30)


@given(
    st.lists(blocks, min_size=1, max_size=5),
    st.integers(0, 20),
    st.integers(0, 40),
    st.lists(st.integers(0, 200), max_size=3),
)
def test_every_plan(
    areas: list[set[int]], capacity: int, most: int, holes: list[int]
) -> None:
    allowed = subtract(ALL, [Range(hole * BLOCK_SIZE, BLOCK_SIZE) for hole in holes])
    asked = marks(**{f"area{i}": needs for i, needs in enumerate(areas)})
    planned = plan(asked, capacity, allowed, most_extra=most * BLOCK_SIZE)
    ranges = [region.range for region in planned.regions]
    assert len(ranges) <= capacity
    wanted = block_ranges(
        {
            block
            for area in planned.areas
            if area.left_out is None
            for block in area.result.blocks
        }
    )
    assert subtract(wanted, ranges) == []
    extra = subtract(ranges, wanted)
    assert total(extra) == planned.extra <= most * BLOCK_SIZE
    assert intersect(extra, allowed) == extra
    assert sum(area.extra for area in planned.areas if not area.left_out) == total(
        extra
    )
    assert len(set(names(planned))) == len(ranges)
    assert all(len(name) == 8 for name in names(planned))


def test_what_drivers_marked_keeps_its_name_and_its_bytes() -> None:
    ring, state = Range(10 * BLOCK_SIZE + 100, 2 * BLOCK_SIZE), Range(0x9008, 24)
    named = (("my ring", ring), ("my ring+0x1000", state), ("my_ring", Range(1, 2)))
    blocks = frozenset({0, 10, 11, 12, 0x9008 // BLOCK_SIZE})
    kernel = AreaResult("kernel", blocks, blocks, 0.0, (), named=named)
    known = Marking((*marks(kmsg={1, 2, 9, 30, 50}).areas, kernel))
    for capacity in (4, 5, 20):
        planned = plan(known, capacity, ALL)
        assert len(planned.regions) <= capacity
        found = {region.name: region.range for region in planned.regions}
        assert found["my_ring"] == ring
        assert found["my_ring_"] == state
        assert found["my_ring1"] == Range(1, 2)
        ranges = [region.range for region in planned.regions]
        needed = block_ranges(blocks | {1, 2, 9, 30, 50})
        assert subtract(needed, ranges) == []
    # A driver's region is no row for others, and not there twice.
    others = [it for it in ranges if it != ring]
    assert intersect([Range(11 * BLOCK_SIZE, BLOCK_SIZE)], others) == []
    left = plan(known, 3, ALL)
    assert [area.result.name for area in left.left_out] == ["kernel"]
