# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a person types at a prompt: crash commands and Python, and how both are completed.

A line that begins with the name of a crash command is one. Any other that begins with
something that Python knows is Python, with ``prog`` and drgn's helpers at hand, as in
drgn itself.
"""

from __future__ import annotations

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
from drgn.commands._crash.common import CRASH_COMMAND_NAMESPACE

from kmemdump.errors import UsageError
from kmemdump.questions.question import Question, command

__all__ = ["Prompt"]

_WORD = re.compile(r"[A-Za-z_]\w*")
_MOST = 2000
"""Completions; a namespace of drgn's helpers has some hundreds."""


class Prompt:
    """
    Makes questions of lines, and completes what is typed.

    :param prog: The kernel that they will be put to.
    """

    def __init__(self, prog: Program) -> None:
        self._names: dict[str, Any] = default_globals(prog)
        self._python = rlcompleter.Completer(self._names)
        self._found: list[str] = []

    def question(self, line: str, more: Callable[[], str]) -> Question:
        """
        Make a question of a line.

        :param more: Reads the next line, if Python needs it; raises EOFError if there
            is none.
        :raises UsageError: If it is neither a command nor Python.
        """
        if not self._is_python(line):
            return command(line, trusted=True)
        try:
            while (code := codeop.compile_command(line, "<prompt>")) is None:
                line += "\n" + more()
        except EOFError:
            first = line.splitlines()[0]
            raise UsageError(f"{first!r}: Python that does not end") from None
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
            return not line.startswith("*")  # A command of crash's.
        name, rest = match[0], line[match.end() :]
        if name in CRASH_COMMAND_NAMESPACE._commands:
            # "list" and "set" are in Python, too, where something follows at once.
            return rest.lstrip().startswith("=") or rest[:1] in ("(", ".", "[")
        known = name in self._names or hasattr(builtins, name)
        # Or a name that gets its value now.
        return known or keyword.iskeyword(name) or rest.lstrip().startswith("=")

    def complete(self, text: str, line: str) -> list[str]:
        """
        Return what *text* may become.

        :param text: The last word.
        :param line: What is before it.
        """
        before = line.strip()
        commands = [
            name
            for name in CRASH_COMMAND_NAMESPACE._commands
            if name.startswith(text) and name.isalnum()
        ]
        if before == "help":
            return sorted(commands)
        word = _WORD.match(before)
        if word and not self._is_python(f"{before} "):
            return []  # Options and numbers of a command.
        found = [] if before else commands
        for state in range(_MOST):
            name = self._python.complete(text, state)
            if name is None:
                break
            found.append(name)
        return sorted(dict.fromkeys(found))


def _show(value: object) -> None:
    """Print what an expression is, as drgn does."""
    if value is None:
        return
    # drgn's objects are C, and its str() what a person wants.
    is_drgn = type(value).__module__.split(".")[0] in ("drgn", "_drgn")
    print(value if is_drgn else repr(value))
