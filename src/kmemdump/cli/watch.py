# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump watch``."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from kmemdump.cli.catalogue.options import check_catalogue
from kmemdump.cli.shared.agent_output import run_folder
from kmemdump.cli.shared.options import (
    SelectionOptions,
    parse_selection,
    path_option,
)
from kmemdump.cli.shared.sealing import seal_options, show_cause_option
from kmemdump.cli.shared.vm_sources import (
    SourceOptions,
    parse_sources,
    source_options,
    watching_options,
)
from kmemdump.coreimage.retention import Limits
from kmemdump.errors import ExitCode, TargetError
from kmemdump.sealing import Seal
from kmemdump.sealing.memory import is_in_memory

__all__ = ["command"]

_NOT_SEALED = (
    "core images are not sealed: who can read them reads the guests' memory "
    "(--seal RECIPIENT)"
)


@click.command("watch")
@source_options
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
    metavar="SECONDS",
    help="Refresh the marks this often, whatever the CPU cost.  [default: 5, or more "
    "so that looks take at most 1 % of one CPU]",
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
@watching_options
@seal_options
@show_cause_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one object per line."
)
@click.option(
    "--exec",
    "program",
    metavar="PROGRAM",
    help="Run this program after each death, with KMEMDUMP_VM, KMEMDUMP_CORE and so on "
    "in its environment.",
)
@click.option(
    "--exec-time",
    type=click.FloatRange(0.1, 86400),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Time that the program has; then it is killed.",
)
@click.option(
    "--catalogue",
    metavar="PLACE",
    help="Add each death to this catalogue: a folder, or a URL of fsspec.",
)
@click.option("--until-dead", is_flag=True, help="End when every VM has died or ended.")
@click.option("-v", "--verbose", is_flag=True, help="Print each step, too.")
def command(
    where: SourceOptions,
    folder: Path,
    interval: float | None,
    hang_after: float,
    then: str,
    limits: Limits,
    seal: Seal | None,
    selected: SelectionOptions,
    no_vmlinux: bool,
    as_json: bool,
    program: str | None,
    exec_time: float,
    catalogue: str | None,
    max_memory: int,
    max_cpu: float,
    until_dead: bool,
    verbose: bool,
) -> int:
    """
    Mark VMs while they run, and write a core image when a kernel dies.

    \b
    kmemdump watch /run/vms -o /var/lib/kmemdump
    kmemdump watch --libvirt --name 'web*' -o /var/lib/kmemdump
    kmemdump watch vm.qmp -o cores --until-dead --then quit

    QMP_SOCKET is a socket of QEMU's -qmp unix:PATH,server=on,wait=off that no other
    program uses, DIR a folder of such sockets, PATTERN a quoted pattern for them, as
    '/run/*/qmp.sock'. VMs that start later are found, and those that start again. A
    libvirt domain is named libvirt:DOMAIN or libvirt:URI#DOMAIN, a VM without QMP
    pid:PID, ch:SOCKET (Cloud Hypervisor) or firecracker:SOCKET.

    A kernel is dead if QEMU reports it, if its memory shows a panic, or if it is
    frozen: one of its CPUs runs and serves no interrupt. If the kernel survives an
    oops, a core image is written, too, and the VM goes on.

    A core image is DIR/NAME-TIME.core. If it cannot be written, the VM stays paused
    until it can. Beyond the limits, the oldest of the most frequent cause is deleted
    first; the first of each cause stays. Start QEMU with -action
    panic=pause,reboot=shutdown,shutdown=pause, so that it keeps a dead VM.
    """
    from kmemdump.cli.shared.watch_output import WatchOutput
    from kmemdump.watch import Event, EventName, Settings, Supervisor, VmAction
    from kmemdump.watch.control.client import control_path
    from kmemdump.watch.program import Follower, ProgramRunner, find_program
    from kmemdump.watch.sources.all import describe_places

    # On this machine only: a VM that is marked now does not wait for a download.
    search: Mapping[str, str] | None = None if no_vmlinux else {}
    make_selection = functools.partial(parse_selection, selected, search)
    make_selection()  # Report a wrong option now, and once.
    builds = run_folder(os.environ) / "builds"
    settings = Settings(
        folder,
        interval,
        hang_after,
        VmAction(then),
        until_dead,
        control_path(run_folder(os.environ), os.getpid()),
        builds if seal is None or is_in_memory(builds) else None,
        max_memory,
        max_cpu,
        limits,
        seal,
    )
    sources = [parse_sources(where)]
    followers: list[Follower] = []
    if program is not None:
        found = find_program(program)
        followers.append(ProgramRunner(found, exec_time, os.environ))
    if catalogue is not None:
        from kmemdump.watch.cataloguing import CatalogueAdder

        check_catalogue(catalogue)
        followers.append(CatalogueAdder(catalogue, os.environ))
    with WatchOutput(os.environ, verbose=verbose, as_json=as_json) as output:
        if seal is None:
            output.show(Event(event=EventName.NOTE, vm="", text=_NOT_SEALED))
        supervisor = Supervisor(
            sources, make_selection, settings, output.show, output.tick, followers
        )
        try:
            with _terminable():
                outcomes = supervisor.run()
        except KeyboardInterrupt:
            text = "stopped; the VMs are not watched any more"
            output.show(Event(event=EventName.NOTE, vm="", text=text))
            return ExitCode.DONE
    if not outcomes:
        raise TargetError(
            f"{describe_places(where.specs, where.libvirt)}: no VM is there"
        )
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
