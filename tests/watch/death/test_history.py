# SPDX-License-Identifier: GPL-2.0-or-later
"""What is remembered of a VM's deaths."""

import json
import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.watch.death.history import DeathHistory

KEEP = 10


class Clock:
    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def die(history, number, *, cause="a", acts=True):
    """One death as the handler notes it; return whether it was dumped."""
    dumped = history.is_dumped(cause, KEEP)
    history.note_death(f"id{number}", cause)
    if dumped:
        history.note_core(f"id{number}", cause, f"{number}.core", KEEP)
    else:
        history.note_skipped(cause)
    if acts:
        history.note_action(started=True)
    return dumped


def test_another_process_knows(tmp_path, clock):
    history = DeathHistory(tmp_path, "vm", clock)
    assert history.core_of("id1") is None
    die(history, 1, acts=False)
    assert history.save() is None
    again = DeathHistory(tmp_path, "vm", clock)
    assert again.core_of("id1") == "1.core"
    assert again.core_of("id2") is None
    assert again.core_of("") is None
    assert again.is_waiting("id1")
    assert again.count("a") == 1
    again.note_action(started=True)
    again.save()
    assert not DeathHistory(tmp_path, "vm", clock).is_waiting("id1")
    assert DeathHistory(tmp_path, "other", clock).core_of("id1") is None
    assert (tmp_path / ".vm.deaths").stat().st_mode & 0o777 == 0o600


def test_resets_wait_longer_and_longer(tmp_path, clock):
    history = DeathHistory(tmp_path, "vm", clock)
    waits = []
    for number in range(12):
        history.note_death(f"{number}", "a")
        waits.append(history.wait)
        history.note_action(started=True)
        clock.now += 20
    assert waits == [0, 0, 0, 5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert history.deaths_in_a_row == 12
    clock.now += 601  # It lived.
    history.note_death("x", "a")
    assert (history.wait, history.deaths_in_a_row) == (0, 1)


def test_a_wait_is_no_life(tmp_path, clock):
    """Seconds count from the start, not from the death before."""
    history = DeathHistory(tmp_path, "vm", clock)
    for number in range(4):
        history.note_death(f"{number}", "a")
        clock.now += 2000  # It was paused.
        history.note_action(started=True)
        clock.now += 1
    history.note_death("last", "a")
    assert history.wait == 10


def test_an_oops_ends_no_loop(tmp_path, clock):
    history = DeathHistory(tmp_path, "vm", clock)
    for number in range(4):
        history.note_death(f"oops {number}", "b", survived=True)
        history.note_death(f"{number}", "a")
        history.note_action(started=True)
    assert history.deaths_in_a_row == 4


def test_a_death_is_noted_once(tmp_path, clock):
    """The next watch comes back to one that could not be dumped."""
    history = DeathHistory(tmp_path, "vm", clock)
    history.note_death("1", "a")
    history.save()
    again = DeathHistory(tmp_path, "vm", clock)
    again.note_death("1", "a")
    assert again.count("a") == 1
    again.note_core("1", "gone from the file", "1.core", KEEP)
    assert again.core_of("1") == "1.core"


def test_core_images_of_one_cause_become_rarer(tmp_path, clock):
    history = DeathHistory(tmp_path, "vm", clock)
    dumped = []
    for number in range(1, 45):
        if die(history, number):
            dumped.append(number)
        clock.now += 10
    assert dumped == [*range(1, 12), 13, 17, 25, 41]
    assert die(history, 50, cause="another")


def test_one_an_hour_at_least(tmp_path, clock):
    history = DeathHistory(tmp_path, "vm", clock)
    dumped = []
    for number in range(1, 200):
        if die(history, number):
            dumped.append(clock.now)
        clock.now += 300
    gaps = [later - earlier for earlier, later in pairwise(dumped)]
    assert max(gaps) == 3900
    clock.now += 3601
    assert all(die(history, f"new{number}") for number in range(10))  # From the start.


def test_bounded(tmp_path, clock):
    history = DeathHistory(tmp_path, "vm", clock)
    for number in range(1000):
        die(history, number, cause=f"cause {number} {'x' * 180}")
    history.save()
    path = tmp_path / ".vm.deaths"
    assert path.stat().st_size < 20_000
    again = DeathHistory(tmp_path, "vm", clock)
    assert again.core_of("id999") == "999.core"
    assert again.core_of("id1") is None


def test_a_clock_that_is_set_back(tmp_path, clock):
    history = DeathHistory(tmp_path, "vm", clock)
    for number in range(5):
        die(history, number)
        clock.now -= 10_000
    history.note_death("x", "a")
    assert history.wait > 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 5000,
        '{"version": 2}',
        '{"version": 1, "dumped": [], "causes": 1, "started": "x", "loop": -1}',
        '{"version": 1, "dumped": {"a": "../x", "b": "\\u001b[2J", "c": 1}}',
        '{"version": 1, "causes": {"a": 1, "b": {"deaths": 1e999, "last": null}}}',
        '{"version": 1, "started": NaN, "loop": %s}' % ("9" * 400),
        '{"version": 1, "waiting": {}}',
    ],
)
def test_hostile_file(tmp_path, clock, text):
    (tmp_path / ".vm.deaths").write_text(text)
    history = DeathHistory(tmp_path, "vm", clock)
    assert all(history.core_of(id) is None for id in "abc")
    assert not history.is_waiting("")
    assert die(history, 1)
    assert history.wait == 0
    assert history.save() is None
    assert json.loads((tmp_path / ".vm.deaths").read_bytes())["version"] == 1


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_any_fields(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("history")
    names = ("dumped", "causes", "started", "loop", "waiting")
    for fields in (dict.fromkeys(names, value), {"causes": {"a": {"gap": value}}}):
        (folder / ".vm.deaths").write_text(json.dumps({"version": 1, **fields}))
        history = DeathHistory(folder, "vm")
        die(history, 1)
        assert history.wait <= 300


def test_a_link_is_not_followed(tmp_path, clock):
    die(history := DeathHistory(tmp_path, "vm", clock), 1)
    history.save()
    (tmp_path / ".vm.deaths").rename(tmp_path / "real")
    (tmp_path / ".vm.deaths").symlink_to("real")
    assert DeathHistory(tmp_path, "vm", clock).core_of("id1") is None


def test_a_fifo_blocks_nobody(tmp_path, clock):
    os.mkfifo(tmp_path / ".vm.deaths")
    history = DeathHistory(tmp_path, "vm", clock)
    assert die(history, 1)
    assert "not a regular file" in history.save()


def test_no_folder(tmp_path, clock):
    history = DeathHistory(tmp_path / "none", "vm", clock)
    assert die(history, 1)
    assert "does not exist" in history.save()
