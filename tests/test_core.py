# SPDX-License-Identifier: GPL-2.0-or-later
"""A core image as Python code opens it: as the command line does, in a call each."""

import pickle
from pathlib import Path

import pytest

import kmemdump
from kmemdump import (
    NotCapturedError,
    QuestionError,
    UnsupportedError,
    UsageError,
    capture,
    open_core,
    open_target,
)
from rigs.scenarios import each_series_once
from rigs.synthetic import elf_core, vmcoreinfo, vmcoreinfo_note
from rigs.verbs import run


@pytest.fixture
def no_kernel(tmp_path: Path) -> Path:
    path = tmp_path / "core"
    path.write_bytes(elf_core([(0x1000, bytes(4096))], vmcoreinfo_note(vmcoreinfo())))
    return path


def test_no_kernel(no_kernel: Path) -> None:
    with open_core(no_kernel) as core:
        with pytest.raises(QuestionError, match=r"^ps: ") as caught:
            core.ask("ps")
        assert caught.value.question == "ps"
        with pytest.raises(UsageError, match="no crash command 'no'"):
            core.ask("no such command")
        assert core.manifest is None
        assert core.verify() == []
        report = core.report()
        assert "cause" in report.to_json()
        assert report.missing
    with pytest.raises(NotCapturedError, match="Bad file descriptor"):
        core.target.memory.read(0x1000, 1)


def test_a_question_error_can_be_pickled() -> None:
    error = QuestionError("ps", "no memory", "half")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == "ps: no memory"
    assert (again.question, again.reason, again.answer) == ("ps", "no memory", "half")


@each_series_once
def test_the_same_as_the_command_line(core_image: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "def one(prog):\n    print('one')\n\ndef two(prog):\n    print('two')\n"
    )
    with open_core(core_image) as core:
        assert core.ask("ps") == run("ask", core_image, "ps").out
        assert core.ask(str(mine)) == "one\ntwo\n"
        assert core.prog["init_uts_ns"].name.release.string_().decode() in core.ask(
            "sys"
        )
        with pytest.raises(QuestionError) as caught:
            core.ask(kmemdump.function(half))
        assert caught.value.answer == "half\n"
        written = tmp_path / "report"
        run("report", core_image, "-o", written)
        report = core.report()
        assert str(report) == written.read_text()
        assert len(report.stacks[0].tasks) >= 200  # The sleeping ones.
        assert core.report(all_stacks=False).stacks == ()


def half(prog: object) -> None:
    print("half")
    raise ValueError("the rest is missing")


@each_series_once
def test_capture_and_ask(core_image: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.core"
    with open_target(str(core_image)) as target:
        captured = capture(target, areas=["tasks", "symbols"], questions=["log"])
        assert captured.complete
        assert captured.save(path) == []
    with open_core(path) as core:
        assert core.verify() == []
        assert core.manifest is not None
        names = [area.name for area in core.manifest.areas]
        assert names == ["coreinfo", "tasks", "questions", "symbols"]
        assert core.ask("ps") == run("ask", core_image, "ps").out
        assert core.ask("log") == run("ask", core_image, "log").out
        with pytest.raises(QuestionError):
            core.ask("mount")


def test_capture_needs_a_kernel(no_kernel: Path) -> None:
    with open_target(str(no_kernel)) as target, pytest.raises(UnsupportedError):
        capture(target)
