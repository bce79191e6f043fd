# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines that are typed at a prompt: which are commands, and how they are completed."""

import pytest
from drgn import Program, host_platform

from kmemdump.errors import UsageError
from kmemdump.questions.prompt import Prompt
from kmemdump.questions.question import Question, attempt


@pytest.fixture
def prompt() -> Prompt:
    return Prompt(Program(host_platform))


def no_more() -> str:
    raise EOFError


def ask(prompt: Prompt, line: str, *more: str) -> str:
    rest = iter(more)
    text, error = attempt(
        Program(host_platform), prompt.question(line, lambda: next(rest))
    )
    assert error is None
    return text


def test_python(prompt):
    assert ask(prompt, "1 + 1") == "2\n"
    assert ask(prompt, "None") == ""
    assert ask(prompt, "'a'") == "'a'\n"
    assert ask(prompt, "x = 5") == ""
    assert ask(prompt, "x * 2") == "10\n"
    assert ask(prompt, "for i in range(2):", "    print(i)", "") == "0\n1\n"
    assert ask(prompt, "list(range(2))") == "[0, 1]\n"
    assert ask(prompt, "set([1])") == "{1}\n"
    assert "Program" in ask(prompt, "type(prog)")
    assert ask(prompt, "Object(prog, prog.int_type('int', 4, True), 7)") == "(int)7\n"


@pytest.mark.parametrize("line", ["ps", "bt -a", "list 1", "* task_struct", "set 1"])
def test_commands(prompt, line):
    question = prompt.question(line, no_more)
    assert isinstance(question, Question)
    assert question.repeatable


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("nosuch", "no crash command 'nosuch'"),
        ("nosuch -x", "no crash command 'nosuch'"),
        ("print(", "Python that is not complete"),
        ("1 +", "invalid syntax|incomplete input"),  # The latter until Python 3.11.3.
        ("bt --nosuch", "'help bt' shows its usage"),
    ],
)
def test_neither(prompt, line, problem):
    with pytest.raises(UsageError, match=problem):
        prompt.question(line, no_more)


def test_completion(prompt):
    assert "mount" in prompt.complete("mo", "")
    assert "mod" in prompt.complete("mo", "")
    assert "print(" in prompt.complete("pri", "")
    assert prompt.complete("prog.platf", "") == ["prog.platform"]
    assert prompt.complete("bt", "help ") == ["bt", "btop"]
    # Not a command in the middle of a line, and nothing of Python in a command's.
    assert "mount" not in prompt.complete("mo", "x = ")
    assert prompt.complete("pri", "bt ") == []
    assert prompt.complete("nosuch", "") == []
