# SPDX-License-Identifier: GPL-2.0-or-later
"""How a redacted core image's answers are compared with those before."""

import pytest

from kmemdump.redaction.changes import compare
from kmemdump.redaction.look import Answer


def changes(old: list[str], new: list[str]) -> tuple[bool, int, int]:
    before, after = (Answer("a", "ps", "\n".join(it), None) for it in (old, new))
    found = compare(before, after)
    return found.same, found.changed, found.gone


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("a b c", "a b c", (True, 0, 0)),
        ("a b c", "a X c", (False, 1, 0)),
        ("a b c", "a c", (False, 0, 1)),
        ("a b c", "X c", (False, 1, 1)),
        ("a b", "b a", (False, 2, 0)),
        ("", "a b", (False, 2, 0)),
        ("a a b", "", (False, 0, 3)),
        ("a b", "a X b", (False, 1, 0)),
    ],
)
def test_changed_and_gone_lines(old, new, expected):
    assert changes(old.split(), new.split()) == expected


@pytest.mark.parametrize("gone", [0, 1])
def test_an_answer_about_thousands_of_tasks(gone):
    """A diff compares each line with all that are like it: hours for this one."""
    old = [line for pid in range(10_000) for line in (f"PID: {pid}", "CS: 33", "", "")]
    new = ["PID: X" if line.startswith("PID") else line for line in old]
    assert changes(old, new[gone:]) == (False, 10_000 - gone, gone)
