# SPDX-License-Identifier: GPL-2.0-or-later
"""How often a kernel is looked at."""

import pytest

from kmemdump.marking.pace import Pace


def test_cheap_looks_come_at_the_usual_interval():
    pace = Pace(None, 5.0)
    assert [pace.count(0.02) for _ in range(3)] == [5.0] * 3


def test_dear_looks_take_one_percent_of_a_cpu():
    pace = Pace(None, 5.0)
    costs = [0.5, 1.0, 2.0]
    assert [pace.count(cost) for cost in costs] == pytest.approx([50, 100, 200])


def test_a_dear_look_takes_what_cheap_ones_left():
    pace = Pace(None, 5.0)
    for _ in range(10):
        pace.count(0.02)
    assert pace.count(0.3) == 5.0
    pace = Pace(None, 5.0)
    spent = passed = 0.0
    for number in range(1000):
        cost = 0.4 if number % 7 == 0 else 0.03
        passed += pace.interval
        spent += cost
        pace.count(cost)
        assert spent <= 0.01 * (passed + pace.interval) + 1e-9


def test_who_asks_for_an_interval_gets_it():
    pace = Pace(2.0, 5.0)
    assert pace.interval == pace.count(7.5) == 2.0
