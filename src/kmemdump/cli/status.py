# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump status``."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict

import click

from kmemdump.agent.status import read_all
from kmemdump.cli.shared.agent_lines import agent_is_ill, agent_lines, agent_record
from kmemdump.cli.shared.agent_output import run_folder
from kmemdump.cli.shared.messages import print_line
from kmemdump.errors import ExitCode, TargetError, UsageError

__all__ = ["command"]


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--metrics", is_flag=True, help="Print what is known of VMs for Prometheus."
)
@click.option(
    "--refresh", is_flag=True, help="Let each VM's kernel be looked at first."
)
def command(as_json: bool, metrics: bool, refresh: bool) -> int:
    """
    Show what this machine's watches and agents hold, how old it is, and its cost.

    \b
    kmemdump status
    kmemdump status --refresh
    kmemdump status --metrics

    A watch is a running 'kmemdump watch'; an agent is a 'kmemdump mark --daemon'.
    The exit status is 0 if all is well, and 1 if something is missing, late or dead.
    """
    from kmemdump.cli.shared.watch_lines import vm_is_ill, watch_lines
    from kmemdump.watch.control.client import refresh_all
    from kmemdump.watch.control.metrics import metrics as page
    from kmemdump.watch.control.status import read_watches

    if as_json and metrics:
        raise UsageError("--json and --metrics exclude each other")
    folder = run_folder(os.environ)
    if refresh:
        refresh_all(folder)
    agents, watches = read_all(folder), read_watches(folder)
    if not agents and not watches:
        raise TargetError(
            f"no watch and no agent runs here (none is known in {folder})\n"
            "'kmemdump watch' and 'kmemdump mark live --daemon' start one"
        )
    now = time.time()
    if metrics:
        click.echo(page(watches), nl=False)
    elif as_json:
        record = {
            "version": 2,
            "agents": [agent_record(status) for status in agents],
            "watches": [asdict(watch) for watch in watches],
        }
        click.echo(json.dumps(record, indent=2))
    else:
        lines = [line for status in agents for line in agent_lines(status, now)]
        lines += [line for watch in watches for line in watch_lines(watch, now)]
        for line in lines:
            print_line(line)
    ill = any(agent_is_ill(status, now) for status in agents) or any(
        vm_is_ill(vm, now) for watch in watches for vm in watch.vms
    )
    return ExitCode.INCOMPLETE if ill else ExitCode.DONE
