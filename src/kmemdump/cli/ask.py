# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump ask``."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kmemdump.bounds.page import Partner
from kmemdump.bounds.steps import state
from kmemdump.cli.shared.completion import complete_question
from kmemdump.cli.shared.messages import print_message, shown_progress
from kmemdump.cli.shared.options import TargetOptions, opened_target, target_options
from kmemdump.cli.shared.terminal import typed, with_python
from kmemdump.errors import BudgetExceededError, ExitCode, KmemdumpError, UsageError
from kmemdump.files import OpenFile
from kmemdump.memory.physical import FileMemory
from kmemdump.memory.ranges import Extent
from kmemdump.text import printable

if TYPE_CHECKING:
    from kmemdump.core import Core
    from kmemdump.firmware.ramoops_search import Ramoops
    from kmemdump.questions.question import Question

__all__ = ["command"]

_RAMOOPS = "ramoops"


@click.command("ask")
@click.argument("target", metavar="CORE")
@click.argument(
    "questions",
    nargs=-1,
    metavar="[QUESTION…]",
    shell_complete=complete_question,
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, after the last answer."
)
@target_options
def command(
    target: str,
    questions: tuple[str, ...],
    as_json: bool,
    vmlinux: Path | None,
    reading: TargetOptions,
) -> int:
    """
    Put questions to the kernel in CORE, or in any other target.

    \b
    kmemdump ask vm.core ps 'bt -a'
    kmemdump ask vm.core 'struct task_struct.pid,comm ffff8f6201234000'
    kmemdump ask vm.core 'prog["jiffies"]'

    A QUESTION is one of drgn's crash commands ("ps", "bt -a", …), "dis FUNCTION", which
    shows machine code ("dis schedule", "dis vfs_write+0x25d"), "waits", which says what
    lock each blocked task waits for, "locks", which lists those that tasks hold (of a
    kernel with lockdep), a Python expression with "prog" and drgn's helpers, or
    FILE.py, whose public functions are called with a drgn.Program. Without one,
    questions are read from the terminal or from standard input, one per line; there, a
    line may be any Python.

    "ramoops", as the only question, prints the text that ramoops kept in memory. It
    needs no kernel: CORE may be a file of that RAM alone.
    """
    if _RAMOOPS in questions:
        if len(questions) > 1 or as_json:
            raise UsageError(
                f"{_RAMOOPS!r} cannot be combined with other questions or --json"
            )
        return _ask_ramoops(target, reading)
    from kmemdump.core import Core
    from kmemdump.kernel.user_builds import user_builds
    from kmemdump.questions.question import Question

    wanted = _parse(questions)
    talking = not questions and sys.stdin.isatty() and not as_json
    answers: list[dict[str, object]] = []
    print_answer = answers.append if as_json else _print
    with opened_target(target, reading, progress=False) as opened:
        page = state()
        if page is not None and not questions:
            page.partner = Partner.PERSON if talking else Partner.STREAM
        core = Core(opened, vmlinux=vmlinux, builds=user_builds(os.environ, opened))
        kernel = core.kernel
        bare = [isinstance(item, Question) and item.bare for item in wanted]
        if kernel.problem and not (bare and all(bare)):
            print_message(kernel.problem)
        if talking:
            _greet(core)
        # What a child before this one has answered, it has printed.
        before = page.printed if page is not None and questions and not as_json else 0
        failed = page is not None and page.failed
        given = with_python(kernel, wanted[before:])
        for question in given if questions else typed(kernel, talking):
            good = question and _put(core, question, print_answer, talking)
            failed = failed or not good
            if page is not None:
                page.printed, page.failed = page.printed + (not as_json), failed
        if failed and kernel.lacks:
            print_message(kernel.lacks)
    if as_json:
        click.echo(json.dumps({"version": 1, "answers": answers}, indent=2))
    return ExitCode.INCOMPLETE if failed and not talking else ExitCode.DONE


def _parse(texts: Sequence[str]) -> list[Question | str]:
    """Return the questions; Python is left as text, since it needs the kernel."""
    from kmemdump.questions.parse import parse_question
    from kmemdump.questions.prompt import is_expression

    found: list[Question | str] = []
    for text in texts:
        try:
            found += parse_question(text)
        except UsageError:
            if not is_expression(text):
                raise
            found.append(text)
    return found


def _greet(core: Core) -> None:
    """Say which kernel it is, what happened to it, and what can be typed."""
    what = core.target.name
    with contextlib.suppress(KmemdumpError), shown_progress():
        report = core.report(all_stacks=False)
        what = f"{report.kernel.release or what}: {report.cause.sentence}"
    click.echo(printable(what))
    click.echo("'help' lists commands; Python works, with prog; Ctrl-D ends")


def _ask_ramoops(target: str, reading: TargetOptions) -> int:
    from kmemdump.firmware.ramoops_search import read_ramoops

    try:
        with opened_target(target, reading) as opened:
            found = read_ramoops(opened.memory, target)
    except BudgetExceededError:
        raise
    except KmemdumpError:
        # It may be the RAM of ramoops alone, without a kernel.
        if not Path(target).is_file():
            raise
        file = OpenFile(Path(target))
        extents = [Extent(0, file.size, 0)]
        with closing(FileMemory(file.detach(), extents, file.name)) as memory:
            found = read_ramoops(memory, target)
        if not found.zones:
            raise
    return _print_ramoops(found, target)


def _print_ramoops(found: Ramoops, name: str) -> int:
    """Print all that ramoops kept, by address."""
    problems = [found.unchecked] if found.unchecked and found.zones else []
    for zone in found.zones:
        where = f"{zone.address:#x}"
        when = ""
        if zone.seconds is not None:
            # A damaged one may be no time.
            with contextlib.suppress(OverflowError, ValueError, OSError):
                when = f", {datetime.fromtimestamp(zone.seconds, UTC):%F %T} UTC"
        click.echo(f"== ramoops zone at {where}{when}")
        for line in zone.text.removesuffix("\n").split("\n"):
            click.echo(printable(line, keep="\t"))
        problems += [f"ramoops zone at {where}: {text}" for text in zone.problems]
    if not found.zones:
        problems.append(f"{name}: no ramoops zone is in use")
    for problem in problems:
        print_message(problem)
    return ExitCode.INCOMPLETE if problems else ExitCode.DONE


def _put(
    core: Core,
    question: Question,
    print_answer: Callable[[dict[str, object]], None],
    talking: bool,
) -> bool:
    """Put a question, print the answer, and return whether there was one."""
    from kmemdump.questions.question import explain

    try:
        text, error = core.attempt(question)
    except KeyboardInterrupt:
        if not talking:
            raise
        print_message("stopped")
        return False
    reason = None if error is None else explain(error)
    print_answer({"question": question.text, "answer": text, "error": reason})
    sys.stdout.flush()
    return error is None


def _print(answer: dict[str, object]) -> None:
    # The kernel's log, and names in it, may hold what a terminal obeys.
    lines = str(answer["answer"]).split("\n")
    click.echo("\n".join(printable(line, keep="\t") for line in lines), nl=False)
    if answer["error"] is not None:
        what = str(answer["question"]).splitlines()[0]
        print_message(f"{what}: {answer['error']}")
