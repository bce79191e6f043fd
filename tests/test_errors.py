# SPDX-License-Identifier: GPL-2.0-or-later
"""One family of errors, each of which knows its exit status."""

import pickle

import pytest

from kmemdump import errors
from kmemdump.errors import ExitCode, FormatError, KmemdumpError

FAMILY = [
    item
    for item in vars(errors).values()
    if isinstance(item, type) and issubclass(item, Exception)
]


def test_the_family():
    assert len(FAMILY) > 5
    assert all(issubclass(item, KmemdumpError) for item in FAMILY)
    # To catch one of Python's must never catch one of ours by accident.
    assert all(not issubclass(item, (OSError, LookupError)) for item in FAMILY)
    assert all(item.__doc__ for item in FAMILY)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("FormatError", ExitCode.UNREADABLE),
        ("TargetError", ExitCode.UNREADABLE),
        ("OutputError", ExitCode.UNREADABLE),
        ("NotCapturedError", ExitCode.UNREADABLE),
        ("UnsupportedError", ExitCode.UNREADABLE),
        ("BudgetExceededError", ExitCode.UNREADABLE),
        ("IncompleteAnswerError", ExitCode.INCOMPLETE),
        ("QuestionError", ExitCode.INCOMPLETE),
        ("RegistrationError", ExitCode.INCOMPLETE),
        ("BackendError", ExitCode.INCOMPLETE),
        ("UsageError", ExitCode.USAGE),
    ],
)
def test_exit_status(name, status):
    assert getattr(errors, name).exit_code == status


def test_numbers_that_scripts_rely_on():
    assert [(code.name, code.value) for code in ExitCode] == [
        ("DONE", 0),
        ("INCOMPLETE", 1),
        ("USAGE", 2),
        ("UNREADABLE", 3),
        ("BUG", 4),
    ]


def test_a_format_error_says_where():
    error = FormatError("dump.elf+0x40", "type 7, expected 1")
    assert str(error) == "dump.elf+0x40: type 7, expected 1"
    again = pickle.loads(pickle.dumps(error))
    assert (again.where, again.problem) == (error.where, error.problem)
