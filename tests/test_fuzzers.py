# SPDX-License-Identifier: GPL-2.0-or-later
"""The fuzzers find what is planted, and count what they have done."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fuzz_fast
from fuzz_fast import Piece
from kmemdump.errors import FormatError
from rigs.mutation import Mutator
from rigs.parser import Parser
from rigs.parsers import PARSERS
from rigs.tally import TALLY, Count, add_count, read_tally

pytestmark = pytest.mark.slow

SEEDS = (b"seed 1234", bytes(64))


def parser(run):
    return Parser("a parser, planted", run, SEEDS)


def refuse(data):
    raise FormatError("planted", f"{len(data)} bytes")


@given(st.lists(st.binary(max_size=80), min_size=1), st.integers(0, 1 << 32))
def test_any_seed_is_damaged(seeds, number):
    mutator = Mutator(seeds, random.Random(number))
    for _ in range(50):
        data = mutator.make()
        assert len(data) <= 1 << 15
        mutator.learn(data, None if len(data) % 2 else f"error {len(data)}")


def test_what_is_said_for_the_first_time_is_kept():
    mutator = Mutator([b"a"], random.Random(1))
    for said in ("bytes: 12", "bytes: 13", "name missing"):
        mutator.learn(said.encode(), said)
    assert mutator._kept == [b"bytes: 12", b"name missing"]


def test_inputs_are_counted(tmp_path):
    count = Piece(parser(refuse), tmp_path, 0.05).run(1)
    assert count.mutated >= 200
    assert count.failures == 0
    assert 0 < count.longest < 5
    assert not list(tmp_path.iterdir())


def test_an_exception_is_found_with_its_input(tmp_path):
    def fail(data):
        if data[:1] != b"s":
            raise KeyError("planted")

    count = Piece(parser(fail), tmp_path, 0.05).run(1)
    assert count.failures == 1  # One for each place in the code.
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("a-parser-planted-failed-")
    with pytest.raises(KeyError):
        fail(path.read_bytes())


def test_a_hang_is_found_with_its_input(tmp_path, monkeypatch):
    def hang(data):
        if data[:1] != b"s":
            sum(range(1 << 60))  # In C: no handler of Python's runs.

    monkeypatch.setattr(fuzz_fast, "LONGEST", 0.1)
    count = Piece(parser(hang), tmp_path, 1.0).run(1)
    assert count.failures == 1
    (path,) = tmp_path.iterdir()
    assert path.read_bytes()[:1] != b"s"


def test_runs_add_up(tmp_path):
    path = tmp_path / "tally.json"
    assert read_tally(path) == {}
    add_count(
        "a", Count(mutated=5, cpu_seconds=1.5, longest=0.5, last="2026-01-01"), path
    )
    add_count("b", Count(guided=1), path)
    total = add_count("a", Count(guided=2, longest=0.25, last="2025-01-01"), path)
    assert total == Count(2, 5, 0, 1.5, 0.5, 0, "2026-01-01")
    assert total.inputs == 7
    assert read_tally(path)["a"] == total
    assert [*read_tally(path)] == ["a", "b"]


def test_work_goes_on_where_it_ended(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fuzz_fast, "FOLDER", tmp_path)
    path = tmp_path / "tally.json"
    add_count("a parser, planted", Count(mutated=1000), path)
    assert fuzz_fast.fuzz([parser(refuse)], 900, 60, path, 0.05) == 0
    assert read_tally(path)["a parser, planted"].inputs == 1000
    assert fuzz_fast.fuzz([parser(refuse)], 1001, 60, path, 0.05) == 0
    assert read_tally(path)["a parser, planted"].inputs > 1000
    assert "a second" in capsys.readouterr().out


def test_the_tally_has_parsers_that_exist():
    """Or their inputs were counted under another name."""
    cores = {name for name in read_tally(TALLY) if name.startswith("core image ")}
    assert set(read_tally(TALLY)) - cores <= {item.name for item in PARSERS}
