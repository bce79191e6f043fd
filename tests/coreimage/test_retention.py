# SPDX-License-Identifier: GPL-2.0-or-later
"""Which core images go when there are too many."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.coreimage.retention import (
    Limits,
    StoredCore,
    choose_for_room,
    choose_surplus,
)

NO_LIMIT = 1 << 60


def core(number, cause="a", machine="vm", size=1, name=""):
    return StoredCore(float(number), name or f"{number}", size, machine, cause)


@st.composite
def folders(draw):
    """Some core images, each with its own name, in any order; some are fresh."""
    count = draw(st.integers(0, 30))
    cores = [
        core(
            draw(st.integers(0, 20)),
            draw(st.sampled_from("aaaabbc")),
            draw(st.sampled_from(["x", "x", "y", "z"])),
            draw(st.integers(1, 9)),
            name=f"{number}",
        )
        for number in range(count)
    ]
    fresh = draw(st.sets(st.sampled_from(cores), max_size=2)) if cores else set()
    return draw(st.permutations(cores)), {item.name for item in fresh}


limits = st.builds(Limits, keep=st.integers(1, 8), max_bytes=st.integers(0, 60))


def firsts(cores):
    found = {}
    for item in sorted(cores):
        found.setdefault(item.cause, item)
    return set(found.values())


def is_within(cores, limit):
    per_machine = Counter(item.machine for item in cores)
    return (
        all(count <= limit.keep for count in per_machine.values())
        and sum(item.size for item in cores) <= limit.max_bytes
    )


@given(folders(), limits)
def test_the_rest_is_within_limits(folder, limit):
    cores, fresh = folder
    gone = choose_surplus(cores, limit, fresh)
    left = set(cores) - set(gone)
    assert len(gone) == len(set(gone)) == len(cores) - len(left)
    assert not {item.name for item in gone} & fresh
    over = [item for item in left if item.name not in fresh]
    if not is_within(left, limit):
        # Only what was just written is left: of a machine, or at all.
        full = {
            machine
            for machine, count in Counter(item.machine for item in left).items()
            if count > limit.keep
        }
        assert not over or all(item.machine not in full for item in over)
        if sum(item.size for item in left) > limit.max_bytes:
            assert not over


@given(folders(), st.integers(0, 60))
def test_the_first_of_a_cause_goes_last(folder, size):
    cores, fresh = folder
    gone = choose_surplus(cores, Limits(NO_LIMIT, size), fresh)
    if set(gone) & firsts(cores):
        left = set(cores) - set(gone)
        assert all(item in firsts(cores) or item.name in fresh for item in left)


@given(folders(), st.integers(1, 8))
def test_the_first_of_a_cause_goes_last_of_each_machine(folder, keep):
    cores, fresh = folder
    gone = choose_surplus(cores, Limits(keep, NO_LIMIT), fresh)
    for machine in {item.machine for item in gone}:
        own = [item for item in cores if item.machine == machine]
        if set(gone) & firsts(own):
            left = set(own) - set(gone)
            assert all(item in firsts(own) or item.name in fresh for item in left)


@given(folders(), limits)
def test_no_more_than_needed(folder, limit):
    cores, fresh = folder
    gone = choose_surplus(cores, limit, fresh)
    if gone:
        assert not is_within(set(cores) - set(gone[:-1]), limit)


@given(folders(), limits, st.randoms(use_true_random=False))
def test_the_order_of_files_does_not_matter(folder, limit, random: Random):
    cores, fresh = folder
    shuffled = list(cores)
    random.shuffle(shuffled)
    assert choose_surplus(cores, limit, fresh) == choose_surplus(shuffled, limit, fresh)


@given(folders(), limits)
def test_twice_deletes_no_more(folder, limit):
    cores, fresh = folder
    left = set(cores) - set(choose_surplus(cores, limit, fresh))
    assert choose_surplus(left, limit, fresh) == []


@given(folders(), st.integers(1, 100))
def test_room_costs_no_knowledge(folder, need):
    cores, fresh = folder
    gone = choose_for_room(cores, need, fresh)
    newest = {item.machine: item for item in sorted(cores)}
    kept = firsts(cores) | set(newest.values())
    assert not set(gone) & kept
    assert not {item.name for item in gone} & fresh
    may_go = [item for item in cores if item not in kept and item.name not in fresh]
    if sum(item.size for item in may_go) < need:
        assert gone == []  # It would not help.
    else:
        assert sum(item.size for item in gone) >= need
        assert sum(item.size for item in gone[:-1]) < need


@pytest.mark.parametrize(
    ("cores", "limit", "expected"),
    [
        ([core(i) for i in range(5)], Limits(keep=3), ["1", "2"]),
        # Of the most frequent cause, not the oldest of all.
        (
            [core(0, "a"), core(1, "a"), *(core(i, "b") for i in range(2, 6))],
            Limits(keep=5),
            ["3"],
        ),
        # Each is the first of its cause: the newest stays.
        ([core(i, f"{i}") for i in range(4)], Limits(keep=1), ["0", "1", "2"]),
        ([core(0), core(1)], Limits(keep=1), ["0"]),
        # By size, over all machines.
        (
            [core(i, "ab"[i % 2], f"vm{i % 2}", size=10) for i in range(6)],
            Limits(keep=9, max_bytes=40),
            ["2", "3"],
        ),
        # One that invents causes drives out its own.
        (
            [core(0, "old", "a"), *(core(i, f"{i}", "evil") for i in range(1, 5))],
            Limits(keep=9, max_bytes=3),
            ["1", "2"],
        ),
    ],
)
def test_examples(cores, limit, expected):
    fresh = {max(cores).name}
    assert [item.name for item in choose_surplus(cores, limit, fresh)] == expected


def test_default_free_space():
    assert Limits().free(100) == 5
    assert Limits().free(10**12) == 10**9
    assert Limits(min_free=7).free(10**12) == 7
