# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump status``."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict

import click

from kmemdump.agent.status import Status, read_all
from kmemdump.cli.shared.agent_output import run_folder
from kmemdump.errors import ExitCode, TargetError
from kmemdump.text import format_duration, format_size

__all__ = ["command"]

_LATE = 2.0
"""A look is late after this many intervals."""


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> int:
    """
    Show the regions that this machine's agents hold, their age, and their cost.

    The exit status is 0 if all is well, and 1 if something is missing, late or dead.
    """
    folder = run_folder(os.environ)
    found = read_all(folder)
    if not found:
        raise TargetError(
            f"no agent has left its status in {folder}\n"
            "'kmemdump mark live --daemon' starts one"
        )
    now = time.time()
    if as_json:
        records = [{"version": 1, **asdict(status)} for status in found]
        click.echo(json.dumps(records, indent=2))
    else:
        for status in found:
            _print(status, now)
    return ExitCode.INCOMPLETE if any(_ill(it, now) for it in found) else ExitCode.DONE


def _ill(status: Status, now: float) -> bool:
    late = now - status.marked > _LATE * status.interval + 60
    return not status.alive or bool(status.failure) or bool(status.problems) or late


def _print(status: Status, now: float) -> None:
    who = f"process {status.pid}, since {format_duration(max(now - status.started, 0))}"
    if not status.alive:
        who = f"process {status.pid} is gone; what it registered is still there"
    click.echo(f"{status.table}: kernel {status.kernel}; {who}")
    age = format_duration(max(now - status.marked, 0))
    click.echo(
        f"  holds   {status.regions} regions, {format_size(status.bytes)}, looked at "
        f"{age} ago, every {format_duration(status.interval)}"
    )
    click.echo(f"  looks   {status.refreshes} again, {status.failures} of them failed")
    cost = status.cost
    click.echo(
        f"  costs   {format_size(cost.memory)} of memory (at most "
        f"{format_size(cost.most_memory)}), {cost.share:.2%} of one CPU "
        f"({cost.each_look:.2f} s each look, {cost.first_look:.1f} s the first)"
    )
    if status.failure:
        click.echo(f"  failed  {status.failure}")
    for problem in status.problems:
        click.echo(f"  lacks   {problem}")
