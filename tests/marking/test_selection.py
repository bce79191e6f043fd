# SPDX-License-Identifier: GPL-2.0-or-later
"""Selections, as the command line and Python code make them."""

import pytest

from kmemdump.areas import AREAS, Area
from kmemdump.areas.area import area
from kmemdump.errors import UsageError
from kmemdump.marking.selection import select
from kmemdump.questions.crash_commands import command

OWN = area("own", "an area of one's own", "ps")
TASKS = next(item for item in AREAS if item.name == "tasks")


def names(areas: list[Area]) -> list[str]:
    return [item.name for item in areas]


def test_nothing_selects_the_default_areas():
    chosen = select()
    usual = [item for item in AREAS if item.default]
    assert names(chosen.areas) == [item.name for item in usual if not item.early]
    # Where no host looks after the death.
    assert names(select(early=True).areas) == names(usual)
    assert not chosen.named
    assert not select(areas=["-symbols"]).named


def test_areas_that_are_added_to_the_default_ones():
    chosen = select(areas=["+all-stacks"])
    assert "all-stacks" in names(chosen.areas)
    assert set(names(chosen.areas)) == {*names(select().areas), "all-stacks"}
    assert not chosen.named
    assert names(select(areas=["kmsg", "+tasks"]).areas) == [
        "coreinfo",
        "kmsg",
        "tasks",
    ]
    assert names(select(areas=["+kmsg"]).areas) == names(select().areas)


def test_areas_by_name_and_as_objects():
    chosen = select(areas=["kmsg", OWN, TASKS])
    assert names(chosen.areas) == ["coreinfo", "kmsg", "own", "tasks"]
    assert chosen.areas[2] is OWN
    assert chosen.named
    assert select(areas=[OWN]).areas == [AREAS[0], OWN]


def test_an_object_with_another_areas_name():
    with pytest.raises(UsageError, match="there is an area 'kmsg' already"):
        select(areas=[area("kmsg", "not ours", "ps")])


def test_questions_as_text_files_and_objects(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def one(prog): pass\ndef two(prog): pass\n")
    chosen = select(questions=["ps", str(path), command("log")])
    assert [item.text for item in chosen.questions] == [
        "ps",
        "mine.py:one",
        "mine.py:two",
        "log",
    ]
    with pytest.raises(UsageError):
        select(questions=["no such command"])


def test_the_rest(tmp_path):
    chosen = select(
        symbols=["a"], regions=[("b", 1 << 63, 8)], vmlinux=str(tmp_path / "vmlinux")
    )
    assert chosen.symbols == ("a",)
    assert chosen.regions == (("b", 1 << 63, 8),)
    assert chosen.vmlinux == tmp_path / "vmlinux"
