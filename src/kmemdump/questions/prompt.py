# SPDX-License-Identifier: GPL-2.0-or-later
"""
Lines that a user types at a prompt, crash commands or Python, and their completion.

A line that begins with the name of a crash command is a crash command. Any other line
that begins with a name known to Python is Python; ``prog`` and drgn's helpers are
defined, as in drgn itself.
"""

from __future__ import annotations

import ast
import builtins
import codeop
import keyword
import re
import rlcompleter
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any

from drgn import Program
from drgn.cli import default_globals

from kmemdump.errors import UsageError
from kmemdump.questions.crash_commands import command
from kmemdump.questions.drgn_internals import command_names, is_drgn_object
from kmemdump.questions.question import Question

__all__ = ["Prompt", "is_expression"]

_WORD = re.compile(r"[A-Za-z_]\w*")
_MAX_COMPLETIONS = 2000
"""Limit of completions; a namespace of drgn's helpers has a few hundred."""


class Prompt:
    """
    Turns lines into questions, and completes words.

    :param prog: The kernel to which the questions will be put.
    """

    def __init__(self, prog: Program) -> None:
        self._names: dict[str, Any] = default_globals(prog)
        self._python = rlcompleter.Completer(self._names)
        self._found: list[str] = []

    def question(self, line: str, more: Callable[[], str]) -> Question:
        """
        Turn a line into a question.

        :param more: Reads the next line, where Python needs one; raises EOFError at
            the end.
        :raises UsageError: If the line is neither a command nor Python.
        """
        if not self._is_python(line):
            return command(line, trusted=True)
        try:
            while (code := codeop.compile_command(line, "<prompt>")) is None:
                line += "\n" + more()
        except EOFError:
            first = line.splitlines()[0]
            raise UsageError(f"{first!r}: Python that is not complete") from None
        except (SyntaxError, ValueError, OverflowError) as error:
            raise UsageError(f"{line.splitlines()[0]!r}: {error}") from error
        return Question(line, self._runner(code), repeatable=False)

    def _runner(self, code: CodeType) -> Callable[[Program], None]:
        def run(_prog: Program) -> None:
            display = sys.displayhook
            sys.displayhook = _show
            try:
                exec(code, self._names)
            finally:
                sys.displayhook = display

        return run

    def _is_python(self, line: str) -> bool:
        match = _WORD.match(line)
        if match is None:
            return not line.startswith("*")  # A crash command.
        name, rest = match[0], line[match.end() :]
        if name in command_names():
            return not _is_command(line)
        known = name in self._names or hasattr(builtins, name)
        # A line may also assign a new name.
        return known or keyword.iskeyword(name) or rest.lstrip().startswith("=")

    def complete(self, text: str, line: str) -> list[str]:
        """
        Return the completions of a word.

        :param text: The last word of the line.
        :param line: The line before that word.
        """
        before = line.strip()
        commands = [
            name for name in command_names() if name.startswith(text) and name.isalnum()
        ]
        if before == "help":
            return sorted(commands)
        word = _WORD.match(before)
        if word and not self._is_python(f"{before} "):
            return []  # A command's options and numbers are not completed.
        found = [] if before else commands
        for state in range(_MAX_COMPLETIONS):
            name = self._python.complete(text, state)
            if name is None:
                break
            found.append(name)
        return sorted(dict.fromkeys(found))


def _is_command(line: str) -> bool:
    match = _WORD.match(line)
    if match is None or match[0] not in command_names():
        return False
    # "list" and "set" are also Python names: "list(…)", "set.…".
    rest = line[match.end() :]
    return not (rest.lstrip().startswith("=") or rest[:1] in ("(", ".", "["))


def is_expression(text: str) -> bool:
    """Return whether a text is Python, and neither a crash command nor a file."""
    if text.endswith(".py") or _is_command(text):
        return False
    try:
        found = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return not isinstance(found, ast.Name | ast.Constant)


def _show(value: object) -> None:
    """Print the value of an expression, as drgn does."""
    if value is None:
        return
    # drgn itself prints str() of its objects; repr() is code.
    print(value if is_drgn_object(value) else repr(value))
