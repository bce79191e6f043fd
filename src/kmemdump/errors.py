# SPDX-License-Identifier: GPL-2.0-or-later
"""One error family. Any other exception that escapes kmemdump is a bug."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of every ``kmemdump`` verb."""

    DONE = 0
    INCOMPLETE = 1
    """Done, but something that was asked for is missing (and was named)."""
    USAGE = 2
    UNREADABLE = 3
    """The target or file cannot be read."""
    BUG = 4


class KmemdumpError(Exception):
    """Base of all errors that kmemdump raises on purpose."""

    exit_code = ExitCode.UNREADABLE


class FormatError(KmemdumpError):
    """
    Bytes from outside break the format that they claim to have.

    :param where: The input, and the offset or field in it.
    :param problem: What was found and what was expected.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)  # Both in args, so that it can be pickled.
        self.where = where
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class TruncatedError(FormatError):
    """A file ends before its end; what is left of it may be used."""


class TargetError(KmemdumpError):
    """The target cannot be reached, or stopped answering."""


class OutputError(KmemdumpError):
    """A file cannot be written: the disk is full or fails, or the folder is gone."""


class NotCapturedError(KmemdumpError):
    """The target or core image does not hold the requested memory."""


class UnsupportedError(KmemdumpError):
    """The kernel or the host lacks something that is needed."""


class BudgetExceededError(KmemdumpError):
    """A question read more, or took longer, than it was allowed to."""


class IncompleteAnswerError(KmemdumpError):
    """A part of an answer is missing."""

    exit_code = ExitCode.INCOMPLETE


class QuestionError(KmemdumpError):
    """
    A question could not be answered, or only in part.

    :param question: Its text.
    :param reason: What is missing.
    :param answer: The part of the answer that exists.
    """

    exit_code = ExitCode.INCOMPLETE

    def __init__(self, question: str, reason: str, answer: str = "") -> None:
        super().__init__(question, reason, answer)
        self.question = question
        self.reason = reason
        self.answer = answer

    def __str__(self) -> str:
        return f"{self.question}: {self.reason}"


class RegistrationError(KmemdumpError):
    """A region cannot be registered; the registry is unchanged."""

    exit_code = ExitCode.INCOMPLETE


class BackendError(RegistrationError):
    """The backend refuses a region, or is full."""


class UsageError(KmemdumpError):
    """The user's request makes no sense."""

    exit_code = ExitCode.USAGE
