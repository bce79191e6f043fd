# SPDX-License-Identifier: GPL-2.0-or-later
"""
Questions that are drgn's crash commands.

drgn's command line has pipes and redirections and runs a shell for them. Only commands
that a user typed may do that (*trusted*); those that come from a file never do.
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from drgn import FaultError, Object, Program
from drgn.commands import CommandArgumentError, ParsedCommand
from drgn.helpers.linux.sched import cpu_curr

from kmemdump.errors import UsageError
from kmemdump.memory.recorder import current_recorder
from kmemdump.questions.disassemble import disassembly
from kmemdump.questions.drgn_internals import (
    command_names,
    parse_arguments,
    redirect_output,
    replace_helpers,
    run_command,
)
from kmemdump.questions.faster_helpers import FASTER_HELPERS
from kmemdump.questions.locks import LOCKS
from kmemdump.questions.question import Question
from kmemdump.questions.stack_traces import checked_stack_traces
from kmemdump.questions.tolerant_commands import TOLERANT_COMMANDS
from kmemdump.questions.waits import WAITS
from kmemdump.text import no_such

__all__ = ["command"]

_SAFE_COMMANDS = frozenset(
    (
        "ascii",
        "bt",
        "btop",
        "dev",
        "files",
        "fuser",
        "help",
        "ipcs",
        "irq",
        "kmem",
        "list",
        "log",
        "mach",
        "mod",
        "mount",
        "net",
        "ps",
        "pte",
        "ptob",
        "ptov",
        "runq",
        "sig",
        "struct",
        "swap",
        "sym",
        "sys",
        "task",
        "timer",
        "tree",
        "union",
        "vm",
        "vtop",
        "waitq",
        "whatis",
    )
)
"""Read-only commands, which run neither Python nor a shell."""

_SAFE_LINES = frozenset(("foreach bt",))
"""Safe ways to use commands that also run others."""

_ABOUT_NO_TASK = frozenset(
    ("dev", "irq", "kmem", "log", "mod", "net", "ps", "runq", "swap", "sys", "timer")
)
"""Commands whose answer never depends on the current task."""
_OURS = "kmemdump_context"
"""Key in the ``config`` of a program whose current task nobody chose."""

_DISASSEMBLY = "dis"
"""One of crash's commands that drgn does not have."""
_OURS_ALONE = {question.text: question for question in (LOCKS, WAITS)}
"""Questions that crash and drgn do not have."""
_LEAVE = ("exit", "q")
"""drgn's commands that end crash's prompt."""
_SAFE_WORDS = re.compile(r"(?: [A-Za-z0-9_.,:+\- ]*)?")
_NAME = re.compile(r"[A-Za-z0-9_]+|\*")


def command(text: str, *, trusted: bool = False) -> Question:
    """
    Return a question that runs one of drgn's crash commands.

    :param trusted: Whether a user typed the command. Only then are pipes, redirections
        and commands that run Python allowed.
    :raises UsageError: If there is no such command, its arguments are invalid, or it
        is not allowed.
    """
    text = text.strip()
    if not text:
        raise UsageError("an empty question; 'help' lists crash commands")
    match = _NAME.match(text)
    name = match.group() if match else text
    if name == _DISASSEMBLY:
        return disassembly(text)
    if text in _OURS_ALONE:
        return _OURS_ALONE[text]
    if name in _LEAVE:
        raise UsageError(f"question {text!r}: only a prompt can be left")
    arguments = text[len(name) :]
    safe = name in _SAFE_COMMANDS and _SAFE_WORDS.fullmatch(arguments)
    if not (trusted or safe or text in _SAFE_LINES):
        raise UsageError(
            f"question {text!r} was not typed by a user and is not a read-only "
            "command; type it yourself with --ask"
        )
    if name not in command_names():
        raise UsageError(
            f"question {text!r}: "
            + no_such(
                "crash command", name, [*command_names(), _DISASSEMBLY, *_OURS_ALONE]
            )
            + "; 'help' lists them, and FILE.py asks in Python"
        )
    parsed = _parse(text, name, arguments)
    if not trusted and (parsed.pipeline is not None or parsed.redirections):
        raise UsageError(f"question {text!r} redirects its output")
    # If a command runs Python, its arguments are code, not a list.
    words = tuple(parsed.args) if isinstance(parsed.args, list) else ()
    tolerant = TOLERANT_COMMANDS.get((name, *words))
    bare = name == "log" and tolerant is not None
    named = words == ("-a",) or bool(words and words[-1].isdecimal())
    about_current = name not in _ABOUT_NO_TASK and not named

    def put(prog: Program) -> None:
        def run(arguments: Any) -> None:
            with _argument_errors(name):
                run_command(prog, name, arguments, {"prog": prog} if trusted else {})

        with checked_stack_traces(), _redirected(parsed):
            if not bare:
                _set_context(prog, needed=about_current)
            if tolerant is not None:
                tolerant(prog, run)
            else:
                run(parsed.args)

    return Question(text, put, bare=bare)


def _parse(text: str, name: str, arguments: str) -> ParsedCommand[Any]:
    try:
        with _argument_errors(name):
            return parse_arguments(name, arguments.lstrip())
    except SyntaxError as error:
        raise UsageError(f"question {text!r}: {error.msg}") from error
    except UsageError as error:
        raise UsageError(f"question {text!r}: {error}") from error


@contextlib.contextmanager
def _argument_errors(name: str) -> Iterator[None]:
    """Say what is wrong with a command's arguments without argparse's own words."""
    try:
        yield
    except CommandArgumentError as error:
        problem = str(error).rpartition("error: ")[2]
        raise UsageError(f"{problem}; 'help {name}' shows its usage") from error


@contextlib.contextmanager
def _redirected(parsed: ParsedCommand[Any]) -> Iterator[None]:
    """Redirect a command's output as its arguments say."""
    if parsed.pipeline is None:
        with redirect_output(parsed):
            yield
        return
    # A shell needs a file to write to; sys.stdout may not be a file.
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        try:
            with contextlib.redirect_stdout(file), redirect_output(parsed):
                yield
        finally:
            file.seek(0)
            sys.stdout.write(file.read())


def _set_context(prog: Program, *, needed: bool) -> None:
    """
    Set the task that a command is about if none is named.

    :param needed: Whether an answer may depend on it.
    """
    # Without a panic drgn has no current task; crash takes the one that CPU 0 runs.
    recorder = current_recorder()
    if "crash_context" in prog.config and not (recorder and _OURS in prog.config):
        return
    if recorder is None:
        task = _find_context(prog)
    elif needed or "crash_context" not in prog.config:
        task = recorder.memo("crash_context", lambda: _find_context(prog))
    else:
        return
    if task is not None:
        prog.config["crash_context"] = task
        prog.config[_OURS] = True


def _find_context(prog: Program) -> Object | None:
    try:
        return prog.crashed_thread().object
    except (LookupError, FaultError, ValueError):
        with contextlib.suppress(LookupError, FaultError):
            return cpu_curr(prog, 0).read_()
    return None


replace_helpers(FASTER_HELPERS)
