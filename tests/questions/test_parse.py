# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions from Python files of a user's."""

import json
import textwrap
from pathlib import Path

import pytest
from drgn import Program

from kmemdump.errors import UsageError
from kmemdump.kernel.program import core_program
from kmemdump.questions.parse import load_questions
from kmemdump.questions.question import answer, attempt, explain
from kmemdump.vmcoreinfo import VmcoreInfo
from rigs.synthetic import vmcoreinfo


@pytest.fixture
def prog() -> Program:
    """A kernel without memory."""
    return core_program(62, VmcoreInfo.parse(vmcoreinfo(), "test"), "the test")


def write(folder: Path, text: str, name: str = "my.py") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def test_a_file(prog, tmp_path):
    path = write(
        tmp_path,
        """
        from __future__ import annotations

        import os
        from dataclasses import dataclass
        from os.path import join

        @dataclass
        class Answer:  # Looks its module up.
            text: str

        def first(prog):
            print(Answer("one").text)

        def second(prog):
            print("two", _helper(prog))

        def _helper(prog):
            return 2

        def of_two(prog, other):
            raise AssertionError

        def of_none():
            raise AssertionError
        """,
    )
    found = load_questions(path)
    assert [question.text for question in found] == ["my.py:first", "my.py:second"]
    assert not any(question.repeatable for question in found)
    assert [answer(prog, question) for question in found] == ["one\n", "two 2\n"]


def test_a_file_named_like_a_module_of_ours(tmp_path):
    load_questions(write(tmp_path, "def f(prog): pass", "json.py"))
    import json as again

    assert again is json


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import nosuch", "my.py: ModuleNotFoundError: No module named 'nosuch' ("),
        ("x = 1\n\nx.y", "has no attribute 'y' (PATH, line 3)"),
        ("def f(prog:\n", "my.py: SyntaxError: "),
        ("raise SystemExit('no')", "my.py: SystemExit: no"),
        ("x = 1", "my.py: no question; expected functions of one parameter, prog"),
        ("\0", "my.py: "),
    ],
)
def test_a_file_that_is_refused(tmp_path, text, problem):
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        load_questions(path)
    assert problem.replace("PATH", str(path)) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UsageError, match=r"none\.py: No such file"):
        load_questions(tmp_path / "none.py")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(UsageError, match=r"folder\.py: Is a directory"):
        load_questions(tmp_path / "folder.py")
    with pytest.raises(UsageError, match="not a Python file"):
        load_questions(write(tmp_path, "", "my.txt"))
    (tmp_path / "noise.py").write_bytes(b"\xff\xfe" * 9)
    with pytest.raises(UsageError, match=r"noise\.py: "):
        load_questions(tmp_path / "noise.py")


def test_where_a_function_failed(prog, tmp_path):
    path = write(tmp_path, "def f(prog):\n    return prog['nosuch']\n")
    _, error = attempt(prog, load_questions(path)[0])
    assert explain(error).endswith(f"'nosuch' ({path}, line 2)")
