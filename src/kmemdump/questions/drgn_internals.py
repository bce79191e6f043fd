# SPDX-License-Identifier: GPL-2.0-or-later
"""
What we use of drgn that is not its public API: its crash commands.

drgn may change these names in any release. Nothing else imports a name of drgn's that
begins with an underscore.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any

from drgn import Program
from drgn.commands import ParsedCommand, _ArgparseCommand, _redirect_and_pipe
from drgn.commands._crash.common import CRASH_COMMAND_NAMESPACE

__all__ = [
    "command_names",
    "is_drgn_object",
    "parse_arguments",
    "redirect_output",
    "run_command",
]


def command_names() -> Collection[str]:
    """Return the names of drgn's crash commands."""
    names: Collection[str] = CRASH_COMMAND_NAMESPACE._commands.keys()
    return names


def parse_arguments(name: str, arguments: str) -> ParsedCommand[Any]:
    """
    Parse the arguments of a crash command.

    :raises SyntaxError: If quotes, pipes or redirections are malformed.
    :raises CommandArgumentError: If the command has no such arguments.
    """
    found = CRASH_COMMAND_NAMESPACE._commands[name]
    parsed = found.parse(arguments)
    if isinstance(found, _ArgparseCommand):
        # drgn parses them when the command runs. Errors are reported before that here.
        with contextlib.redirect_stderr(io.StringIO()):
            found._parser.parse_args(parsed.args)
    return parsed


def run_command(prog: Program, name: str, args: Any, names: dict[str, Any]) -> None:
    """
    Run a crash command, which prints its answer.

    :param args: Parsed arguments.
    :param names: Global variables, for commands that run Python.
    """
    found = CRASH_COMMAND_NAMESPACE.lookup(prog, name)
    found.run(prog, name, args, globals=names)


def redirect_output(parsed: ParsedCommand[Any]) -> AbstractContextManager[None]:
    """
    Redirect output as a command's arguments say.

    With a pipe, ``sys.stdout`` must be a file.
    """
    manager: AbstractContextManager[None] = _redirect_and_pipe(
        parsed.redirections, parsed.pipeline
    )
    return manager


def is_drgn_object(value: object) -> bool:
    """Return whether a value's type belongs to drgn, or to its module in C."""
    return type(value).__module__.partition(".")[0] in ("drgn", "_drgn")
