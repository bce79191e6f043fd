# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump watch``."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kmemdump.cli.shared.options import (
    SelectionOptions,
    parse_selection,
    selection_options,
)
from kmemdump.errors import ExitCode, KmemdumpError, UsageError

if TYPE_CHECKING:
    from kmemdump.watch import Outcome, Report

__all__ = ["command"]


@click.command("watch")
@click.argument("sockets", nargs=-1, required=True, metavar="QMP_SOCKET…")
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where core images go; made if it is not there.",
)
@click.option(
    "--interval",
    type=click.FloatRange(1, 86400),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="Refresh the marks this often.",
)
@click.option(
    "--hang-after",
    type=click.FloatRange(0, 86400),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="Take a kernel for frozen after this time; 0 never does.",
)
@click.option(
    "--then",
    type=click.Choice(["pause", "reset", "quit", "continue"]),
    default="pause",
    show_default=True,
    help="What to do with a VM whose kernel died.",
)
@selection_options
@click.option(
    "--vmlinux",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The kernels' debug file, to be used instead of kallsyms and BTF.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, a line for each news."
)
@click.option("-v", "--verbose", is_flag=True, help="Tell what is going on, too.")
def command(
    sockets: tuple[str, ...],
    folder: Path,
    interval: float,
    hang_after: float,
    then: str,
    selected: SelectionOptions,
    vmlinux: Path | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """
    Mark VMs while they run, and write a core image when a kernel dies.

    Each QMP_SOCKET is a socket of QEMU's -qmp unix:PATH,server=on,wait=off that
    nobody else uses. A kernel is dead if QEMU says so, if its memory says that it
    panicked, or if it is frozen: one of its CPUs runs and serves no interrupt.
    An oops that the kernel survives is written, too, and the VM goes on.

    A core image is DIR/NAME-TIME.core. Start QEMU with -action
    panic=pause,reboot=shutdown,shutdown=pause, so that it keeps a dead VM.
    """
    from kmemdump.watch import Settings, Then, watch_fleet

    make_selection = functools.partial(parse_selection, selected, vmlinux)
    make_selection()  # What makes no sense is said now, and once.
    named = _name_sockets(sockets)
    _make_folder(folder)
    settings = Settings(folder, interval, hang_after, Then(then))
    with _Screen(list(named), verbose, as_json) as screen:
        try:
            with _terminable():
                outcomes = watch_fleet(named, make_selection, settings, screen.take)
        except KeyboardInterrupt:
            screen.say("kmemdump", "stopped; the VMs are not watched any more")
            return ExitCode.DONE
        for name, outcome in outcomes.items():
            screen.sum_up(name, outcome)
    if not any(outcome.problem for outcome in outcomes.values()):
        return ExitCode.DONE
    if not any(outcome.watched for outcome in outcomes.values()):
        return ExitCode.UNREADABLE
    return ExitCode.INCOMPLETE


def _name_sockets(sockets: Sequence[str]) -> dict[str, Path]:
    """Give each VM the shortest name that tells it from the others."""
    paths = [Path(spec.removeprefix("qmp:")).absolute() for spec in sockets]
    if len(set(paths)) < len(paths):
        raise UsageError("a socket is named twice, expected each VM once")
    depth = 1
    while True:
        names = [_name(path, depth) for path in paths]
        if len(set(names)) == len(names):
            return dict(zip(names, paths, strict=True))
        depth += 1
        if depth > max(len(path.parts) for path in paths):
            names = [f"{name}-{i}" for i, name in enumerate(names, 1)]
            return dict(zip(names, paths, strict=True))


def _name(path: Path, depth: int) -> str:
    parts = [*path.parts[-depth:-1], path.name]
    parts[-1] = path.stem or path.name
    name = "-".join(part.strip("/") for part in parts)
    clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return clean.strip("-.")[-100:] or "vm"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KmemdumpError(f"cannot make {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise KmemdumpError(f"cannot write into {folder}")


@contextmanager
def _terminable() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Screen:
    """Lines, and on a terminal a line below them for each VM."""

    def __init__(self, names: Sequence[str], verbose: bool, as_json: bool) -> None:
        self._verbose = verbose
        self._as_json = as_json
        self._states = dict.fromkeys(names, "starting")
        console = Console(highlight=False, soft_wrap=True)
        self._live = None
        if console.is_terminal and not as_json:
            self._live = Live(self._table(), console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def take(self, news: Report) -> None:
        """Show news of a VM."""
        if news.passing:
            self._states[news.name] = news.text
            self._refresh()
            if not self._verbose:
                return
        self.say(news.name, news.text)

    def sum_up(self, name: str, outcome: Outcome) -> None:
        """Show how watching a VM ended."""
        cores = len(outcome.cores)
        self._states[name] = f"ended, {cores} core image{'s' if cores != 1 else ''}"
        self._refresh()
        if outcome.problem:
            what = "incomplete" if outcome.watched else "not watched"
            self.say(name, f"{what}: {outcome.problem}")

    def say(self, name: str, text: str) -> None:
        """Print a line about a VM."""
        line = f"{name}: {text}"
        if self._as_json:
            now = datetime.now(UTC).isoformat()
            click.echo(
                json.dumps({"version": 1, "time": now, "vm": name, "text": text})
            )
        elif self._live is not None:
            self._live.console.print(Text(line))
        else:
            click.echo(line)

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, state in self._states.items():
            table.add_row(Text(name, style="bold"), Text(state, overflow="ellipsis"))
        return table
