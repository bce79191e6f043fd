# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks of a registration at a kernel that runs; machines are in test_firmware."""

from types import SimpleNamespace

import pytest

from kmemdump.marking import registration
from kmemdump.marking.mark import AreaResult, Marking, QuestionResult


def looks(*answers: QuestionResult) -> list[SimpleNamespace]:
    """A look for each answer that an area's only question has."""
    nothing: frozenset[int] = frozenset()
    return [
        SimpleNamespace(
            marking=Marking((AreaResult("tasks", nothing, nothing, 0.0, (answer,)),)),
            kernel=SimpleNamespace(own_debug_info=None),
        )
        for answer in answers
    ]


FINE = QuestionResult("ps", None)
TORN = QuestionResult("ps", "no such memory")
RUNNING = QuestionResult("bt 1", "registers for CPU 0 were not saved", True)


@pytest.mark.parametrize(
    ("answers", "incomplete", "used"),
    [
        ((FINE, TORN), (), 0),
        ((TORN, FINE), (), 1),
        ((TORN, TORN, FINE), (), 1),  # Once more, and not for ever.
        ((TORN, FINE), ("tasks",), 0),  # It was so before.
        ((RUNNING, FINE), (), 0),
    ],
)
def test_looks_once_more_if_something_new_is_torn(
    monkeypatch, answers, incomplete, used
):
    found = looks(*answers)
    left = iter(found)
    monkeypatch.setattr(registration, "look", lambda *_, **__: next(left))
    assert registration._look(None, None, None, incomplete) is found[used]


def test_missing_registers_are_no_problem_where_firmware_saves_them():
    excused = registration._ignore_registers(looks(RUNNING)[0].marking)
    assert excused.areas[0].reason is None
    torn = looks(TORN)[0].marking
    assert registration._ignore_registers(torn) == torn
