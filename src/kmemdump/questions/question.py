# SPDX-License-Identifier: GPL-2.0-or-later
"""
Questions: what a dump must be able to answer.

A question is a Python function of a :class:`drgn.Program` that prints its answer; most
of them run one of drgn's crash commands (:mod:`kmemdump.questions.crash_commands`).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass

from drgn import FaultError, ObjectNotFoundError, Program
from drgn.commands import CommandError, CommandExitStatusError

from kmemdump.bounds.steps import TOO_MUCH_MEMORY
from kmemdump.errors import IncompleteAnswerError, KmemdumpError
from kmemdump.kernel.drgn_warnings import collected_warnings
from kmemdump.kernel.program import NAME

__all__ = ["Question", "answer", "attempt", "explain", "function"]


@dataclass(frozen=True, slots=True)
class Question:
    """Something that a dump must be able to answer."""

    text: str
    """The command, or the name of the function."""
    put: Callable[[Program], None]
    """Puts the question to a program; prints the answer."""
    repeatable: bool = True
    """Whether *text* is enough to ask again."""
    bare: bool = False
    """Whether VMCOREINFO is enough for an answer, without symbols and types."""


def function(put: Callable[[Program], None], *, bare: bool = False) -> Question:
    """Return a question that calls a Python function."""
    return Question(put.__name__, put, repeatable=False, bare=bare)


def answer(prog: Program, question: Question) -> str:
    """Put a question and return its output. Its exceptions are passed on."""
    text, error = attempt(prog, question)
    if error is not None:
        raise error
    return text


def attempt(prog: Program, question: Question) -> tuple[str, BaseException | None]:
    """
    Put a question; return its output, and the exception if it failed.

    What drgn only warned of is missing in the answer: it is such an exception, too.
    """
    output = io.StringIO()
    problem: BaseException | None = None
    try:
        with contextlib.redirect_stdout(output), collected_warnings() as warnings:
            question.put(prog)
    # A dead kernel's memory can break drgn's and users' code in any way.
    except (Exception, SystemExit) as error:
        problem = error
    if warnings and (problem is None or isinstance(problem, CommandExitStatusError)):
        problem = IncompleteAnswerError("; ".join(warnings))
    elif problem is not None:
        for line in warnings:
            problem.add_note(line)
    text = output.getvalue()
    # drgn names the file that it reads, which is temporary if we made the program.
    if NAME in prog.config and prog.core_dump_path:
        text = text.replace(prog.core_dump_path, prog.config[NAME])
    return text, problem


def explain(error: BaseException) -> str:
    """Return why a question could not be answered, in one line."""
    if isinstance(error, MemoryError):  # Of C code and Python, without a word.
        return TOO_MUCH_MEMORY
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, FaultError) and f"{error.address:#x}" in error.message:
        text = " ".join(error.message.split())  # str() repeats the address.
    plain = (KmemdumpError, FaultError, CommandError, ObjectNotFoundError)
    # drgn raises these two classes, where other code raises their subclasses.
    if not isinstance(error, plain) and type(error) not in (LookupError, ValueError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    notes = getattr(error, "__notes__", [])
    return f"{text} ({'; '.join(notes)})" if notes else text
