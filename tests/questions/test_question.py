# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions that are functions, and why one could not be answered."""

import pytest
from drgn import FaultError, Program

from kmemdump.errors import FormatError
from kmemdump.kernel.program import core_program
from kmemdump.questions.question import answer, attempt, explain, function
from kmemdump.vmcoreinfo import VmcoreInfo
from rigs.synthetic import vmcoreinfo


@pytest.fixture
def prog() -> Program:
    """A kernel without memory."""
    return core_program(62, VmcoreInfo.parse(vmcoreinfo(), "test"), "the test")


def test_a_function(prog):
    def fortytwo(prog: Program) -> None:
        """Why."""
        print(42)

    question = function(fortytwo)
    assert (question.text, question.repeatable) == ("fortytwo", False)
    assert answer(prog, question) == "42\n"


def test_what_a_function_printed_before_it_failed(prog):
    def count(prog: Program) -> None:
        for number in range(3):
            print(10 // (1 - number))

    text, error = attempt(prog, function(count))
    assert text == "10\n"
    assert explain(error).startswith("ZeroDivisionError: ")
    with pytest.raises(ZeroDivisionError):
        answer(prog, function(count))


def test_a_function_that_exits(prog):
    text, error = attempt(prog, function(lambda prog: exit(3)))
    assert (text, explain(error)) == ("", "SystemExit: 3")


def test_a_function_that_is_interrupted(prog):
    def interrupted(prog: Program) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # Ctrl-C is for us.
        attempt(prog, function(interrupted))


def test_the_file_has_the_name_that_a_person_knows(prog):
    text = answer(prog, function(lambda prog: print(f"from {prog.core_dump_path}")))
    assert text == "from the test\n"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FormatError("core+0x10", "a\nb"), "core+0x10: a b"),
        (FaultError("could not read", 0x1000), "could not read: 0x1000"),
        (FaultError("core does not hold 0x1000", 0x1000), "core does not hold 0x1000"),
        (LookupError("could not find 'x'"), "could not find 'x'"),
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError("not a task"), "not a task"),
        (AttributeError("no x"), "AttributeError: no x"),
        (AssertionError(), "AssertionError"),
        (MemoryError(), "the question took more memory than it may"),
        (FileNotFoundError(2, "Not there", "x"), "x: Not there"),
    ],
)
def test_why_a_question_could_not_be_answered(error, text):
    assert explain(error) == text
