# SPDX-License-Identifier: GPL-2.0-or-later
"""
The part of drgn that we use outside its public API: its crash commands.

drgn may change these names in any release. No other module imports names of drgn that
begin with an underscore.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from _drgn_util.plugins import call_plugins
from drgn import Object, Program
from drgn.commands import (
    CommandArgumentError,
    ParsedCommand,
    _ArgparseCommand,
    _redirect_and_pipe,
)
from drgn.commands._crash import _bt
from drgn.commands._crash.common import CRASH_COMMAND_NAMESPACE
from drgn.helpers.linux import panic
from drgn.helpers.linux.printk import get_dmesg
from drgn.helpers.linux.stack import LinuxKernelStack

__all__ = [
    "check_log_first",
    "command_names",
    "is_drgn_object",
    "load_all",
    "parse_arguments",
    "redirect_output",
    "replace_helpers",
    "replace_stack_traces",
    "run_command",
]


_COMMANDS = "drgn.commands._crash."
"""With which the names of the modules start that have the commands."""


def load_all() -> None:
    """
    Load what drgn loads when a program is first used: its other commands, and plugins.

    Looking for plugins reads the metadata of all packages of this Python.
    """
    importlib.import_module("drgn.commands._builtin")
    call_plugins("kmemdump_has_no_such_hook")


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
        # drgn parses arguments when the command runs; here, errors come before that.
        with _quiet_usage():
            found._parser.parse_args(parsed.args)
    return parsed


def run_command(prog: Program, name: str, args: Any, names: dict[str, Any]) -> None:
    """
    Run a crash command, which prints its answer.

    :param args: Parsed arguments.
    :param names: Global variables, for commands that run Python.
    :raises CommandArgumentError: If the command parses its arguments itself, as ``ps``
        and ``foreach`` do, and has no such ones.
    """
    found = CRASH_COMMAND_NAMESPACE.lookup(prog, name)
    with _quiet_usage():
        found.run(prog, name, args, globals=names)


@contextlib.contextmanager
def _quiet_usage() -> Iterator[None]:
    """Drop what argparse prints before it raises an error."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            yield
    except CommandArgumentError:
        printed.truncate(0)
        raise
    finally:
        sys.stderr.write(printed.getvalue())


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
    """Return whether a value's type comes from drgn, or from its C module."""
    return type(value).__module__.partition(".")[0] in ("drgn", "_drgn")


def replace_stack_traces(unwind: Callable[[Object], LinuxKernelStack]) -> None:
    """
    Let command ``bt`` unwind with a function of ours, in all programs.

    :param unwind: Takes a ``struct task_struct *``.
    """
    vars(_bt)["kernel_stack_trace"] = unwind


def check_log_first(check: Callable[[Program], None]) -> None:
    """
    Let command ``sys`` read the kernel log only after a check, in all programs.

    :param check: Raises if the log is damaged.
    """

    def checked(prog: Program, **form: Any) -> bytes:
        check(prog)
        text: bytes = get_dmesg(prog, **form)
        return text

    vars(panic)["get_dmesg"] = checked


def replace_helpers(helpers: Mapping[str, Callable[..., Any]]) -> None:
    """
    Let all crash commands call functions of ours instead of helpers of drgn.

    :param helpers: By the names that the commands import.
    """
    for module in list(sys.modules.values()):
        if module.__name__.startswith(_COMMANDS):
            names = vars(module)
            names.update({name: helpers[name] for name in helpers.keys() & names})
