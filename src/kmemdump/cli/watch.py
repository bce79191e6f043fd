# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump watch``."""

from __future__ import annotations

import functools
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kmemdump.cli.shared.options import (
    SelectionOptions,
    no_vmlinux_option,
    parse_selection,
    path_option,
    selection_options,
    vmlinux_option,
)
from kmemdump.errors import ExitCode

if TYPE_CHECKING:
    from kmemdump.watch import Message, Outcome

__all__ = ["command"]


@click.command("watch")
@click.argument("sockets", nargs=-1, required=True, metavar="QMP_SOCKET…")
@path_option(
    "-o",
    "--output",
    "folder",
    required=True,
    metavar="DIR",
    help="Folder for core images; created if it is missing.",
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
    help="Report a kernel as frozen after this time; 0 turns this off.",
)
@click.option(
    "--then",
    type=click.Choice(["pause", "reset", "quit", "continue"]),
    default="pause",
    show_default=True,
    help="What to do with a VM after its kernel died.",
)
@selection_options
@vmlinux_option
@no_vmlinux_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one object per line."
)
@click.option("-v", "--verbose", is_flag=True, help="Print each step, too.")
def command(
    sockets: tuple[str, ...],
    folder: Path,
    interval: float,
    hang_after: float,
    then: str,
    selected: SelectionOptions,
    no_vmlinux: bool,
    as_json: bool,
    verbose: bool,
) -> int:
    """
    Mark VMs while they run, and write a core image when a kernel dies.

    Each QMP_SOCKET is a socket of QEMU's -qmp unix:PATH,server=on,wait=off that
    no other program uses. A kernel is dead if QEMU reports it, if its memory shows
    a panic, or if it is frozen: one of its CPUs runs and serves no interrupt.
    If the kernel survives an oops, a core image is written, too, and the VM goes on.

    A core image is DIR/NAME-TIME.core. Start QEMU with -action
    panic=pause,reboot=shutdown,shutdown=pause, so that it keeps a dead VM.
    """
    from kmemdump.watch import Settings, VmAction, name_vms, watch_vms

    # On this machine only: a VM that is marked now does not wait for a download.
    search: Mapping[str, str] | None = None if no_vmlinux else {}
    make_selection = functools.partial(parse_selection, selected, search)
    make_selection()  # Report a wrong option now, and once.
    named = name_vms(sockets)
    settings = Settings(folder, interval, hang_after, VmAction(then))
    with _Screen(list(named), verbose, as_json) as screen:
        try:
            with _terminable():
                outcomes = watch_vms(named, make_selection, settings, screen.show)
        except KeyboardInterrupt:
            screen.print_line("kmemdump", "stopped; the VMs are not watched any more")
            return ExitCode.DONE
        for name, outcome in outcomes.items():
            screen.sum_up(name, outcome)
    if not any(outcome.problem for outcome in outcomes.values()):
        return ExitCode.DONE
    if not any(outcome.watched for outcome in outcomes.values()):
        return ExitCode.UNREADABLE
    return ExitCode.INCOMPLETE


@contextmanager
def _terminable() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Screen:
    """Prints lines, and on a terminal below them the status of each VM."""

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

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, message: Message) -> None:
        """Show a message about a VM."""
        if message.samples is not None:
            if self._as_json:
                self._print_json(message.vm, message.text, samples=message.samples)
            return
        if message.passing:
            self._states[message.vm] = message.text
            self._refresh()
            if not self._verbose:
                return
        self.print_line(message.vm, message.text)

    def sum_up(self, name: str, outcome: Outcome) -> None:
        """Show how watching a VM ended."""
        cores = len(outcome.cores)
        self._states[name] = f"ended, {cores} core image{'s' if cores != 1 else ''}"
        self._refresh()
        if outcome.problem:
            what = "incomplete" if outcome.watched else "not watched"
            self.print_line(name, f"{what}: {outcome.problem}")

    def print_line(self, name: str, text: str) -> None:
        """Print a line about a VM."""
        line = f"{name}: {text}"
        if self._as_json:
            self._print_json(name, text)
        elif self._live is not None:
            self._live.console.print(Text(line))
        else:
            click.echo(line)

    def _print_json(self, name: str, text: str, **more: int) -> None:
        now = datetime.now(UTC).isoformat()
        record = {"version": 1, "time": now, "vm": name, "text": text, **more}
        click.echo(json.dumps(record))

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, state in self._states.items():
            table.add_row(Text(name, style="bold"), Text(state, overflow="ellipsis"))
        return table
