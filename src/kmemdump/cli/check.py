# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump check``."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmemdump.cli.shared.agent_output import run_folder
from kmemdump.cli.shared.messages import print_message
from kmemdump.cli.shared.options import (
    SelectionOptions,
    parse_selection,
    path_option,
)
from kmemdump.cli.shared.sealing import seal_options
from kmemdump.cli.shared.vm_sources import (
    SourceOptions,
    source_options,
    watching_options,
)
from kmemdump.errors import ExitCode
from kmemdump.text import format_size, plain_console, printable

if TYPE_CHECKING:
    from kmemdump.checks import Check, Point, Wanted
    from kmemdump.coreimage.retention import Limits
    from kmemdump.sealing import Seal

__all__ = ["command"]

_STYLES = {"ok": "green", "warning": "yellow", "missing": "red"}
_WIDEST = 10_000
"""Columns of a table that is not on a terminal."""
_WIDTH = 21
"""Columns of a point's state and name."""


@click.command("check")
@source_options
@path_option(
    "-o",
    "--output",
    "folder",
    metavar="DIR",
    help="Folder where watch will write core images.",
)
@click.option(
    "--deaths",
    type=click.IntRange(1, 1_000_000),
    default=10,
    show_default=True,
    metavar="NUMBER",
    help="Number of core images for which there should be room.",
)
@click.option(
    "--max-time",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Time that a target may take.",
)
@watching_options
@seal_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    where: SourceOptions,
    folder: Path | None,
    deaths: int,
    max_time: float,
    limits: Limits,
    seal: Seal | None,
    selected: SelectionOptions,
    no_vmlinux: bool,
    max_memory: int,
    max_cpu: float,
    as_json: bool,
) -> int:
    """
    Rehearse a death: say whether it would leave a core image now, and what to do.

    \b
    kmemdump check
    kmemdump check /run/vms -o /var/lib/kmemdump
    kmemdump check libvirt:web1 -o /var/lib/kmemdump

    VMs are named as for watch: sockets, folders and patterns of sockets, domains of
    libvirt. Without a name, or with live, check this machine. A core image is written
    as after a death, its questions are tried, and it is removed. A VM goes on; its
    registers are read as watch reads them, which stops it for some milliseconds.
    check takes the options of watch in configuration files, but not their VMs.

    The exit status is 0 if a death now would leave all that is asked for, 1 if it
    would leave less, and 3 if a target cannot be read.
    """
    from kmemdump.bounds.steps import Limits as ProcessLimits
    from kmemdump.checks import find_targets, run_checks

    make_wanted = functools.partial(
        _wanted, selected, None if no_vmlinux else {}, folder, deaths, limits, seal
    )
    make_wanted()  # Report a wrong option now, and once.
    names = find_targets(*where)
    single = len(names) == 1
    with _shown(names, as_json, single) as show:
        limits_of_each = ProcessLimits(max_memory, max_cpu, max_time)
        checks = run_checks(names, make_wanted, show, limits_of_each)
    if as_json:
        click.echo(json.dumps(_record(checks), indent=2))
    elif single:
        _sum_up(checks[0])
    else:
        _print_table(checks)
    return _status(checks)


def _wanted(
    selected: SelectionOptions,
    search: Mapping[str, str] | None,
    folder: Path | None,
    deaths: int,
    limits: Limits,
    seal: Seal | None,
) -> Wanted:
    from kmemdump.checks import Wanted

    selection = parse_selection(selected, search)
    return Wanted(selection, folder, deaths, limits, run_folder(os.environ), seal)


@contextmanager
def _shown(
    names: Sequence[str], as_json: bool, single: bool
) -> Iterator[Callable[[str, Point], None]]:
    """Show points as they are found; of several targets, only how far it is."""
    if as_json:
        yield lambda _target, _point: None
    elif single:
        console = plain_console()
        yield lambda _target, point: _print_point(console, point)
    else:
        console = plain_console(stderr=True)
        with console.status(f"checking {len(names)} targets …") as status:
            yield lambda target, point: status.update(
                Text(f"checking {len(names)} targets … {target}: {point.name}")
            )


def _print_point(console: Console, point: Point) -> None:
    state = Text(f"{point.state:<9}", _STYLES[point.state])
    _print_line(console, state + Text(f"{point.name:<12}"), point.text)
    if point.advice:
        _print_line(console, Text(" " * _WIDTH), f"→ {point.advice}")


def _print_line(console: Console, head: Text, text: str) -> None:
    """Print a line, wrapped on a terminal; in a file, searches find it whole."""
    line = Text(printable(text))
    if not console.is_terminal:
        console.print(head + line, soft_wrap=True)
        return
    width = max(console.width - len(head), 20)
    for part in line.wrap(console, width, overflow="fold"):
        console.print(head + part, soft_wrap=True)
        head = Text(" " * len(head))


def _sum_up(check: Check) -> None:
    if check.error is not None:
        print_message(f"error: {check.error}")
        return
    counts = [f"{count} {name}" for name, count in _counts(check).items() if count]
    core = f": {format_size(check.core.size)}" if check.core is not None else ""
    click.echo(
        f"{check.target}: a death now would leave less than was asked for; "
        f"{', '.join(counts)}"
        if check.state == "missing"
        else f"{check.target}: a death now would leave what was asked for{core}"
        + (f"; {', '.join(counts)}" if counts else "")
    )


def _counts(check: Check) -> dict[str, int]:
    """Return how many points are not well."""
    states = [str(point.state) for point in check.points]
    warnings, lacking = states.count("warning"), states.count("missing")
    return {
        f"warning{'s' if warnings > 1 else ''}": warnings,
        "missing": lacking,
    }


def _print_table(checks: Sequence[Check]) -> None:
    console = plain_console()
    table = Table(box=box.SIMPLE_HEAD)
    # In a file, lines are as long as they are.
    for column in ("target", "state", "kernel", "core image", "what is not well"):
        table.add_column(column, overflow="fold", no_wrap=not console.is_terminal)
    for check in checks:
        core = (
            f"{format_size(check.core.size)}, {check.core.finished:.2f} s"
            if check.core
            else ""
        )
        state = "unreadable" if check.error is not None else str(check.state)
        names = [f"{p.name}" for p in check.points if p.state != "ok"]
        table.add_row(
            Text(printable(check.target)),
            Text(state, _STYLES.get(state, "red")),
            Text(printable(check.release or "")),
            core,
            Text(", ".join(names)),
        )
    if console.is_terminal:
        console.print(table)
    else:
        width = plain_console(width=_WIDEST).measure(table).maximum
        plain_console(width=width).print(table)
    for check in checks:
        _print_details(console, check)


def _print_details(console: Console, check: Check) -> None:
    """Print the points that are not well."""
    bad = [point for point in check.points if point.state != "ok"]
    if not bad and check.error is None:
        return
    console.print(Text(printable(check.target), "bold"), soft_wrap=True)
    for point in bad:
        _print_point(console, point)
    if check.error is not None:
        head = Text(f"{'error':<{_WIDTH}}", "red")
        _print_line(console, head, "; ".join(check.error.splitlines()))


def _status(checks: Sequence[Check]) -> int:
    if all(check.error is not None for check in checks):
        return ExitCode.UNREADABLE
    if any(check.state == "missing" for check in checks):
        return ExitCode.INCOMPLETE
    return ExitCode.DONE


def _record(checks: Sequence[Check]) -> dict[str, Any]:
    return {
        "version": 1,
        "targets": [
            {
                "target": check.target,
                "state": str(check.state),
                "error": check.error,
                "release": check.release,
                "core": asdict(check.core) if check.core is not None else None,
                "points": [asdict(point) for point in check.points],
            }
            for check in checks
        ],
    }
