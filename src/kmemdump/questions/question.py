# SPDX-License-Identifier: GPL-2.0-or-later
"""
Questions: what a dump must be able to answer.

A question is one of drgn's crash commands, or a Python function of a
:class:`drgn.Program` that prints its answer. drgn's command line knows pipes and
redirections and would run a shell for them; only what a person typed may do that
(*trusted*), and what comes from a file never does.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from drgn import FaultError, ObjectNotFoundError, Program
from drgn.commands import (
    CommandArgumentError,
    CommandError,
    ParsedCommand,
    _ArgparseCommand,
    _redirect_and_pipe,
)
from drgn.commands._crash.common import CRASH_COMMAND_NAMESPACE
from drgn.helpers.linux.sched import cpu_curr
from drgn.helpers.linux.timekeeping import ktime_get_coarse_ns, ktime_get_coarse_real_ns

from kmemdump.errors import KmemdumpError, UsageError
from kmemdump.kernel.printk import LogRecord, format_record, read_log
from kmemdump.kernel.program import NAME
from kmemdump.questions.tolerant_commands import PATIENT
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = [
    "Question",
    "answer",
    "attempt",
    "command",
    "explain",
    "function",
    "load_module",
    "load_questions",
]

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
"""Commands that only read, and neither run Python nor a shell."""

_SAFE_WORDS = re.compile(r"(?: [A-Za-z0-9_.,:+\- ]*)?")
_NAME = re.compile(r"[A-Za-z0-9_]+|\*")


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


def command(text: str, *, trusted: bool = False) -> Question:
    """
    Make a question of one of drgn's crash commands.

    :param trusted: Whether a person typed it: pipes, redirections and commands
        that run Python are for persons only.
    :raises UsageError: If there is no such command, its arguments make no sense,
        or it is not safe.
    """
    text = text.strip()
    if not text:
        raise UsageError("an empty question; 'help' lists crash commands")
    match = _NAME.match(text)
    name = match.group() if match else text
    arguments = text[len(name) :]
    if not trusted and (
        name not in _SAFE_COMMANDS or not _SAFE_WORDS.fullmatch(arguments)
    ):
        raise UsageError(
            f"question {text!r} does not come from a person and is not one of the "
            f"commands that only read; type it yourself with --ask"
        )
    if name not in CRASH_COMMAND_NAMESPACE._commands:
        raise UsageError(
            f"question {text!r}: no crash command {name!r}; "
            "'help' lists them, and FILE.py asks in Python"
        )
    parsed = _parse(text, name, arguments)
    if not trusted and (parsed.pipeline is not None or parsed.redirections):
        raise UsageError(f"question {text!r} redirects its output")
    # Python, for a command that runs it, is code and no list.
    words = tuple(parsed.args) if isinstance(parsed.args, list) else ()
    log = _LOG_COMMANDS.get(words) if name == "log" else None
    patient = PATIENT.get((name, *words))

    def put(prog: Program) -> None:
        with _redirected(parsed):
            if log is not None:
                log(prog)
                return
            _set_context(prog)
            found = CRASH_COMMAND_NAMESPACE.lookup(prog, name)

            def run(arguments: list[str]) -> None:
                names = {"prog": prog} if trusted else {}
                found.run(prog, name, arguments, globals=names)

            if patient is not None:
                patient(prog, run)
            else:
                run(parsed.args)

    return Question(text, put, bare=log is not None)


def _parse(text: str, name: str, arguments: str) -> ParsedCommand[Any]:
    found = CRASH_COMMAND_NAMESPACE._commands[name]
    try:
        parsed = found.parse(arguments.lstrip())
        if isinstance(found, _ArgparseCommand):
            # drgn parses them when the command runs. Said now, it costs no time.
            with contextlib.redirect_stderr(io.StringIO()):
                found._parser.parse_args(parsed.args)
    except SyntaxError as error:
        raise UsageError(f"question {text!r}: {error.msg}") from error
    except CommandArgumentError as error:
        raise UsageError(
            f"question {text!r}: {str(error).partition('error: ')[2]}; "
            f"'help {name}' tells how it is used"
        ) from error
    return parsed


@contextlib.contextmanager
def _redirected(parsed: ParsedCommand[Any]) -> Iterator[None]:
    """Send a command's output where a person wants it to go."""
    if parsed.pipeline is None:
        with _redirect_and_pipe(parsed.redirections, None):
            yield
        return
    # A shell needs a file to write to, which sys.stdout may be or not.
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        try:
            with (
                contextlib.redirect_stdout(file),
                _redirect_and_pipe(parsed.redirections, parsed.pipeline),
            ):
                yield
        finally:
            file.seek(0)
            sys.stdout.write(file.read())


def _set_context(prog: Program) -> None:
    # Without a panic drgn has no task to talk about; crash takes what runs on CPU 0.
    if "crash_context" not in prog.config:
        try:
            prog.config["crash_context"] = prog.crashed_thread().object
        except (LookupError, FaultError, ValueError):
            with contextlib.suppress(LookupError, FaultError):
                prog.config["crash_context"] = cpu_curr(prog, 0).read_()


def function(put: Callable[[Program], None], *, bare: bool = False) -> Question:
    """Make a question of a Python function."""
    return Question(put.__name__, put, repeatable=False, bare=bare)


def load_module(path: Path) -> ModuleType:
    """
    Run a Python file that a person named, as a module that nobody can import.

    :raises UsageError: If it cannot be run.
    """
    name = f"kmemdump_questions_{path.stem}"  # Hides no module of another's.
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: not a Python file; expected FILE.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Dataclasses, among others, look for it there.
    try:
        spec.loader.exec_module(module)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except (Exception, SystemExit) as error:
        _tell_line(error, path)
        raise UsageError(f"{path}: {explain(error)}") from error
    return module


def load_questions(path: Path) -> list[Question]:
    """
    Load questions from a Python file that a person named.

    Each public function of one parameter, the :class:`drgn.Program`, is one.

    :raises UsageError: If the file cannot be run, or holds no question.
    """
    module = load_module(path)
    found = [
        Question(f"{path.name}:{name}", _located(item, path), repeatable=False)
        for name, item in vars(module).items()
        if inspect.isfunction(item)
        and item.__module__ == module.__name__
        and not name.startswith("_")
        and len(inspect.signature(item).parameters) == 1
    ]
    if not found:
        raise UsageError(
            f"{path}: no question; expected functions of one parameter, prog"
        )
    return found


def _located(item: Callable[[Program], None], path: Path) -> Callable[[Program], None]:
    def put(prog: Program) -> None:
        try:
            item(prog)
        except Exception as error:
            _tell_line(error, path)
            raise

    return put


def _tell_line(error: BaseException, path: Path) -> None:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == str(path):
            error.add_note(f"{path}, line {frame.lineno}")
            return


def explain(error: BaseException) -> str:
    """Return why a question could not be answered, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, FaultError) and f"{error.address:#x}" in error.message:
        text = " ".join(error.message.split())  # Not the address twice.
    plain = (KmemdumpError, FaultError, CommandError, ObjectNotFoundError)
    # drgn raises these two themselves where others raise a child of theirs.
    if not isinstance(error, plain) and type(error) not in (LookupError, ValueError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    notes = getattr(error, "__notes__", [])
    return f"{text} ({'; '.join(notes)})" if notes else text


def answer(prog: Program, question: Question) -> str:
    """Put a question and return what it prints. Whatever it raises is passed on."""
    text, error = attempt(prog, question)
    if error is not None:
        raise error
    return text


def attempt(prog: Program, question: Question) -> tuple[str, BaseException | None]:
    """Put a question; return what it prints, and what it ended with if it failed."""
    output = io.StringIO()
    problem: BaseException | None = None
    try:
        with contextlib.redirect_stdout(output):
            question.put(prog)
    # A dead kernel's memory breaks other people's code in any way it likes.
    except (Exception, SystemExit) as error:
        problem = error
    text = output.getvalue()
    # drgn names the file that it reads: of a program of ours, a temporary one.
    if NAME in prog.config and prog.core_dump_path:
        text = text.replace(prog.core_dump_path, prog.config[NAME])
    return text, problem


def _vmcoreinfo(prog: Program) -> VmcoreInfo:
    source = prog.config.get(NAME, "the kernel")
    return VmcoreInfo.parse(prog["VMCOREINFO"].string_(), source)


def _print_log(prog: Program) -> None:
    for record in _log_records(prog):
        print(format_record(record))


def _print_log_with_dates(prog: Program) -> None:
    boot = ktime_get_coarse_real_ns(prog).value_() - ktime_get_coarse_ns(prog).value_()
    for record in _log_records(prog):
        date = datetime.fromtimestamp((boot + record.nanoseconds) // 10**9, UTC)
        print(f"[{date.astimezone():%a %b %e %T %Z %Y}] {record.text}")


def _print_log_without_time(prog: Program) -> None:
    for record in _log_records(prog):
        print(record.text)


def _log_records(prog: Program) -> Iterator[LogRecord]:
    """Yield the records that are there, and raise if there should be more."""
    # Not drgn's, whose text of a record that wraps around the ring is wrong:
    # drgn 0.3 cuts its last 8 bytes off and puts the block's id before it.
    log = read_log(prog.read, _vmcoreinfo(prog))
    yield from log.records
    log.check()


_LOG_COMMANDS: dict[tuple[str, ...], Callable[[Program], None]] = {
    (): _print_log,
    ("-T",): _print_log_with_dates,
    ("-t",): _print_log_without_time,
}
