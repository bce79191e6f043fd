# SPDX-License-Identifier: GPL-2.0-or-later
"""Areas: which there are, and that each is enough for its own questions."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from drgn import FaultError, Program

from kmemdump.areas import AREAS, Area, choose_areas
from kmemdump.areas.area import read_bytes, read_symbol
from kmemdump.errors import UsageError
from kmemdump.kernel.attach import attach
from kmemdump.kernel.program import core_program
from kmemdump.opening import open_target
from kmemdump.questions.question import attempt
from kmemdump.vmcoreinfo import VmcoreInfo
from rigs.dead_machine import DeadMachine
from rigs.scenarios import each_architecture, each_series_once
from rigs.synthetic import vmcoreinfo
from rigs.verbs import run

INFO = VmcoreInfo.parse(vmcoreinfo(), "test")
VIRTUAL = 0xFFFF888000000000


def chosen(*wanted: str) -> list[str]:
    return [area.name for area in choose_areas(wanted)]


def test_which_there_are():
    known = [area.name for area in AREAS]
    assert len(set(known)) == len(known)
    assert set(known) >= {
        "coreinfo", "kmsg", "irq", "panic", "sched", "tasks", "stacks", "modules",
        "mounts", "timers", "memory", "net", "devices", "symbols", "crash",
    }  # fmt: skip
    assert all(area.summary and not area.summary.endswith(".") for area in AREAS)
    assert all(name.isascii() and name == name.lower() for name in known)


def test_the_default_is_all_that_a_look_after_the_death_can_use():
    others = {"new-tasks", "free-pages"}
    assert chosen() == [area.name for area in AREAS if area.name not in others]


def test_choosing():
    assert chosen("kmsg") == ["coreinfo", "kmsg"]  # What all others stand on.
    assert chosen("kmsg", "coreinfo", "kmsg") == ["kmsg", "coreinfo"]
    assert "crash" not in chosen("-crash")
    assert chosen("-crash", "-symbols") == [
        name for name in chosen() if name not in ("crash", "symbols")
    ]
    assert chosen("kmsg", "-coreinfo") == ["kmsg"]
    assert chosen("kmsg", "-kmsg") == ["coreinfo"]
    for wrong in ("nosuch", "-nosuch", "", "-", "--kmsg", "KMSG"):
        with pytest.raises(UsageError, match=r"no area .*; there are coreinfo, kmsg"):
            choose_areas([wrong])


@pytest.fixture
def prog() -> Program:
    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        if offset + count > 0x1000:
            raise FaultError("unmapped", address)
        return bytes(count)

    prog = core_program(62, INFO, "the test")
    prog.add_memory_segment(VIRTUAL, 0x2000, read, False)
    return prog


@pytest.mark.parametrize(
    ("offset", "size", "there"),
    [
        (0, 16, True),
        (0xFFF, 1, True),
        (0xFFF, 2, False),
        (0, 0, False),
        (0, -8, False),
        (0, 17, False),  # More than makes sense.
        (-8, 8, False),
    ],
)
def test_reading_what_may_be_damaged(prog, offset, size, there):
    assert read_bytes(prog, VIRTUAL + offset, size, 16) is there


def test_a_variable_that_a_kernel_lacks(prog):
    assert read_symbol(prog, "nosuch") is False


@each_series_once
def test_each_variable_is_found_in_one_kernel_or_the_other(dead: DeadMachine) -> None:
    """Or it is misspelt."""
    lacking = {
        # A maple tree since v6.5, another name since v6.13, random places since v6.2;
        # irq_err_count is gone in 7.3.
        "x86_64": {
            *("sparse_irqs", "total_nr_irqs", "_cea_offset", "nr_irqs"),
            "irq_err_count",
        },
        "aarch64": {
            *("sparse_irqs", "total_nr_irqs", "nr_irqs"),
            *("page_offset_base", "phys_base", "vmalloc_base", "vmemmap_base"),
            *("crashing_cpu", "die_counter", "_cea_offset"),
        },
    }
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        prog = attach(target).prog
        wanted = {name for area in AREAS for name in area.variables}
        lacks = {name for name in wanted if not read_symbol(prog, name)}
        assert lacks <= lacking[dead.scenario.architecture.name]
        # Each of a pair that replaced the other.
        assert not {"total_nr_irqs", "nr_irqs"} <= lacks
    finally:
        target.close()


@pytest.fixture(scope="module")
def whole(dead: DeadMachine) -> Iterator[Program]:
    """The memory from which all areas are taken."""
    target = open_target(str(dead.full_dump))
    yield attach(target).prog
    target.close()


CHECKED = [area for area in AREAS if area.name not in ("symbols", "crash")]


@each_architecture
@pytest.mark.parametrize("area", CHECKED, ids=[area.name for area in CHECKED])
def test_each_is_enough_for_its_questions(
    dead: DeadMachine, whole: Program, area: Area, tmp_path: Path
) -> None:
    """A core image of nothing else answers what the area keeps answerable."""
    path = tmp_path / "core"
    wanted = ("--area", area.name, "--area", "symbols")
    ended = run("capture", dead.full_dump, "-o", path, *wanted)
    assert ended.status == 0, ended
    core = open_target(str(path))
    try:
        kept = attach(core).prog
        for question in area.questions:
            expected, problem = attempt(whole, question)
            assert problem is None, question.text
            found, problem = attempt(kept, question)
            assert problem is None, (question.text, problem)
            assert found.replace(str(path), "") == expected.replace(
                str(dead.full_dump), ""
            )
    finally:
        core.close()


# Areas of a person's own

OWN = "from kmemdump import area\ndef q(prog):\n    print(1)\nA = area('own', 'x', q)\n"


def test_areas_of_a_file_come_on_top(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    assert chosen(str(path)) == [*chosen(), "own"]
    assert chosen("kmsg", str(path)) == ["coreinfo", "kmsg", "own"]
    assert chosen(str(path), str(path)) == [*chosen(), "own"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "No such file"),
        ("x = 1", "no area; expected NAME = kmemdump.area"),
        ("1 / 0", "ZeroDivisionError: division by zero .*line 1"),
        (OWN.replace("'own'", "'kmsg'"), "there is an area 'kmsg' already"),
    ],
)
def test_files_without_areas(tmp_path, text, problem):
    path = tmp_path / "own.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=problem):
        choose_areas([str(path)])
