# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump mark``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kmemdump.cli.shared.agent_output import AgentOutput, JsonAgentOutput, run_folder
from kmemdump.cli.shared.bounded import bounded
from kmemdump.cli.shared.json_records import refusal_record
from kmemdump.cli.shared.messages import (
    held_back_warnings,
    print_message,
    shown_progress,
)
from kmemdump.cli.shared.options import (
    SelectionOptions,
    grouped,
    parse_selection,
    path_option,
    range_option,
    selection_options,
    vmlinux_option,
)
from kmemdump.errors import ExitCode, UsageError
from kmemdump.formats.kinfo import KinfoLayout
from kmemdump.opening import open_target
from kmemdump.text import format_size

if TYPE_CHECKING:
    from kmemdump.marking.kinfo import KinfoResult
    from kmemdump.marking.registration import Registration, Table
    from kmemdump.marking.selection import Selection
    from kmemdump.memory.ranges import Range
    from kmemdump.targets import Target

__all__ = ["command"]


class _Table(NamedTuple):
    """Which table, and where it is."""

    backend: str
    smem: Range | None
    device_tree: Path | None
    scratch: Range | None
    scratch_item: int | None
    kinfo: Range | None
    layout: str
    no_encryption: bool


class _Stay(NamedTuple):
    """Whether to stay, and how often to look again."""

    daemon: bool
    interval: float | None
    leave_registered: bool


class _CrashKernel(NamedTuple):
    """A root file system for the crash kernel."""

    make_initramfs: Path | None
    to: tuple[str, ...]
    then: str
    release: str | None
    copier: Path | None


def _table_options(function: Callable[..., Any]) -> Callable[..., Any]:
    return grouped(
        function,
        "table",
        _Table,
        click.option(
            "--backend",
            default="minidump",
            show_default=True,
            type=click.Choice(["minidump", "kinfo", "kdump"]),
            help="Table to register with: minidump (Qualcomm's boot firmware), kinfo "
            "(Android's debug_kinfo, for dumps of all RAM) or kdump (a list for this "
            "machine's crash kernel).",
        ),
        range_option(
            "--smem",
            help="Range of SMEM; by default, taken from a device tree or found by its "
            "contents.",
        ),
        path_option(
            "--device-tree",
            help="The machine's DTB; by default, found in the machine's memory.",
        ),
        range_option(
            "--scratch",
            help="Reserved memory for the dump's description; 64 KiB is enough. By "
            "default, the device tree's kmemdump,scratch node.",
        ),
        click.option(
            "--scratch-item",
            type=click.IntRange(8, 0xFFFF),
            metavar="NUMBER",
            help="Allocate this SMEM item for the description instead of --scratch.",
        ),
        range_option(
            "--kinfo",
            help="Range for the kinfo; by default, the device tree's "
            "google,debug-kinfo node.",
        ),
        click.option(
            "--layout",
            default="series",
            show_default=True,
            type=click.Choice([item.value for item in KinfoLayout]),
            help="Layout of the kinfo: that of the kernel's kmemdump series, or one of "
            "Android's.",
        ),
        click.option(
            "--no-encryption",
            is_flag=True,
            help="Ask the firmware not to encrypt the dump: anyone with the device can "
            "read it. Otherwise, at most the holder of the vendor's key can.",
        ),
    )


def _stay_options(function: Callable[..., Any]) -> Callable[..., Any]:
    return grouped(
        function,
        "stay",
        _Stay,
        click.option(
            "--daemon",
            is_flag=True,
            help="Keep running: look again on a timer and on SIGUSR1 or SIGHUP, and "
            "remove the regions at the end.",
        ),
        click.option(
            "--interval",
            type=click.FloatRange(0.1, 86400),
            metavar="SECONDS",
            help="Interval between two looks with --daemon, whatever the CPU cost.  "
            "[default: 10, or more so that looks take at most 1 % of one CPU]",
        ),
        click.option(
            "--leave-registered",
            is_flag=True,
            help="Leave the regions registered at the end of --daemon.",
        ),
    )


def _crash_kernel_options(function: Callable[..., Any]) -> Callable[..., Any]:
    return grouped(
        function,
        "crash_kernel",
        _CrashKernel,
        path_option(
            "--make-initramfs",
            metavar="FILE",
            help="Only write a root file system for a crash kernel that copies the "
            "regions and nothing else. Needs --to.",
        ),
        click.option(
            "--to",
            multiple=True,
            metavar="PLACE",
            help="Where the crash kernel writes the core image: "
            "file:FOLDER@FSTYPE:DEVICE, raw:DEVICE (a partition, which must be empty), "
            "memory:ADDRESS:SIZE (reserved memory) or console:DEVICE. DEVICE is a "
            "path, PARTLABEL=NAME or PARTUUID=UUID. May be repeated: the next one is "
            "used if one fails.",
        ),
        click.option(
            "--then",
            type=click.Choice(["reboot", "poweroff", "halt"]),
            default="reboot",
            show_default=True,
            help="What the crash kernel does afterwards.",
        ),
        click.option(
            "--release",
            metavar="RELEASE",
            help="Release of the crash kernel, for its modules.  [default: the running "
            "kernel's]",
        ),
        path_option(
            "--copier",
            help="The copier, built from kdump/; by default, the installed one.",
        ),
    )


@click.command("mark")
@click.argument("target")
@_table_options
@_crash_kernel_options
@click.option(
    "--off", is_flag=True, help="Only remove the regions that were registered."
)
@_stay_options
@selection_options
@vmlinux_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON; with --daemon, a line for each look.",
)
def command(
    target: str,
    table: _Table,
    off: bool,
    stay: _Stay,
    crash_kernel: _CrashKernel,
    selected: SelectionOptions,
    as_json: bool,
) -> int:
    """
    Register regions with a machine's firmware or crash kernel, which dumps them when it
    dies.

    \b
    kmemdump mark live --daemon
    kmemdump mark live --backend kdump
    kmemdump mark qmp:phone.qmp --backend kinfo
    kmemdump mark live --off

    TARGET is live (this machine; its reserved memory is written through /dev/mem) or
    qmp:SOCKET (a VM that has its RAM in a shared file). Regions of other owners stay as
    they are.
    """
    _check(table, off, stay, selected)
    _check_crash_kernel(table, crash_kernel)
    if crash_kernel.make_initramfs is not None:
        return _make_initramfs(crash_kernel)
    if table.backend == "kinfo":
        return _mark_kinfo(target, table, off, selected.vmlinux, as_json)
    selection = parse_selection(selected, early=True)
    return _mark_regions(target, table, off, stay, selection, as_json)


def _check(table: _Table, off: bool, stay: _Stay, selected: SelectionOptions) -> None:
    """
    Refuse options that exclude each other.

    :raises UsageError: If there are any.
    """
    if off and stay.daemon:
        raise UsageError("--off and --daemon exclude each other")
    if (stay.interval or stay.leave_registered) and not stay.daemon:
        option = "--interval" if stay.interval else "--leave-registered"
        raise UsageError(f"{option} needs --daemon")
    if table.scratch and table.scratch_item is not None:
        raise UsageError("--scratch and --scratch-item exclude each other")
    wanted = any(selected._replace(vmlinux=None))
    if table.backend == "kinfo" and (stay.daemon or wanted):
        raise UsageError(
            "a kinfo holds addresses of the kernel's own tables, which never "
            "change: expected no --daemon, and nothing to mark"
        )


def _check_crash_kernel(table: _Table, wanted: _CrashKernel) -> None:
    """
    Refuse options of the crash kernel with another backend.

    :raises UsageError: If there are any.
    """
    if table.backend != "kdump" and any((wanted.make_initramfs, wanted.to)):
        raise UsageError("--make-initramfs and --to need --backend kdump")
    if (wanted.make_initramfs is None) != (not wanted.to):
        raise UsageError("--make-initramfs and --to need each other")
    if table.backend == "kdump" and any((table.smem, table.scratch, table.kinfo)):
        raise UsageError("--smem, --scratch and --kinfo are not for --backend kdump")


def _make_initramfs(wanted: _CrashKernel) -> int:
    from kmemdump.crash_kernel.installation import ARGUMENTS, install_initramfs
    from kmemdump.crash_kernel.settings import CopierSettings

    assert wanted.make_initramfs is not None
    settings = CopierSettings(wanted.to, wanted.then)
    made = install_initramfs(
        wanted.make_initramfs, settings, wanted.copier, wanted.release
    )
    for path in made.prepared:
        click.echo(f"{path}: prepared for dumps")
    click.echo(
        f"{wanted.make_initramfs}: {format_size(made.size)}, "
        f"modules {', '.join(made.modules) or 'none'}; load it with\n"
        f"  kexec -a -p {made.kernel} --initrd={wanted.make_initramfs} "
        f"--append='{ARGUMENTS}'"
    )
    return ExitCode.DONE


@contextmanager
def _opened(
    target: str, as_json: bool, daemon: bool = False
) -> Iterator[tuple[Target, AgentOutput]]:
    """Open the machine, and the output for its results."""
    from kmemdump.agent.agent import held_signals

    if not daemon:  # Which leaves nothing registered when it is ended.
        bounded(target)
    # Block signals first: threads started later inherit that.
    with (
        held_signals() if daemon else nullcontext(),
        held_back_warnings(),
        open_target(target) as machine,
    ):
        output = AgentOutput(os.environ, machine.name)
        if as_json:
            output = JsonAgentOutput(os.environ, machine.name, lines=daemon)
        yield machine, output


def _mark_regions(
    target: str,
    table: _Table,
    off: bool,
    stay: _Stay,
    selection: Selection,
    as_json: bool,
) -> int:
    from kmemdump.marking.registration import register

    with _opened(target, as_json, stay.daemon) as (machine, output):
        opened_table = _open_table(machine, table)
        if off:
            with closing(opened_table):
                opened_table.withdraw()
            output.print_line("nothing of ours is registered any more")
            return ExitCode.DONE
        with shown_progress():
            opened = _bound_daemon if stay.daemon else None
            registration = register(machine, selection, opened_table, opened)
        with registration:
            if stay.daemon:
                _stay_there(registration, stay, output)
            else:
                output.print_look(registration.last)
            complete = registration.last.complete
    return ExitCode.DONE if complete else ExitCode.INCOMPLETE


def _bound_daemon(table: str) -> None:
    """Give up what an agent needs no more, and limit what its looks may take."""
    from kmemdump.agent.limits import limit_looks
    from kmemdump.agent.privileges import drop_admin

    drop_admin()
    limit_looks(run_folder(os.environ), table)


def _open_table(machine: Target, table: _Table) -> Table:
    from kmemdump.marking.firmware_table import FirmwareTable, TableOptions
    from kmemdump.marking.kdump_table import KdumpTable

    folder = run_folder(os.environ)
    if table.backend == "kdump":
        return KdumpTable(machine, folder)
    options = TableOptions(
        table.smem,
        table.scratch,
        table.scratch_item,
        table.device_tree,
        table.no_encryption,
        folder,
    )
    return FirmwareTable(machine, options)


def _stay_there(registration: Registration, stay: _Stay, output: AgentOutput) -> None:
    from kmemdump.agent.agent import Agent

    folder = run_folder(os.environ)
    with closing(
        Agent(registration, stay.interval, output.print_look, folder)
    ) as agent:
        output.notify(READY="1")
        agent.run()
        output.notify(STOPPING="1")
    if stay.leave_registered:
        output.print_line("stopped; the regions are left")
    else:
        registration.withdraw()
        output.print_line("stopped; the regions are taken off")


def _mark_kinfo(
    target: str, table: _Table, off: bool, vmlinux: Path | None, as_json: bool
) -> int:
    from kmemdump.marking.kinfo import KinfoOptions, mark_kinfo, unmark_kinfo

    options = KinfoOptions(table.kinfo, table.device_tree, run_folder(os.environ))
    layout = KinfoLayout(table.layout)
    with _opened(target, as_json) as (machine, output):
        if off:
            unmark_kinfo(machine, options)
            output.print_line("there is no kinfo any more")
            return ExitCode.DONE
        result = mark_kinfo(machine, layout, options, vmlinux=vmlinux)
    _print_kinfo(result, output)
    return ExitCode.INCOMPLETE if result.missing else ExitCode.DONE


def _print_kinfo(result: KinfoResult, output: AgentOutput) -> None:
    if isinstance(output, JsonAgentOutput):
        output.print_record(
            kinfo=hex(result.range.start),
            layout=result.layout.value,
            addresses={region.name: hex(region.address) for region in result.held},
            refused=[refusal_record(refusal) for refusal in result.refused],
            missing=result.missing,
        )
        return
    click.echo(f"kinfo at {result.range.start:#x}: {len(result.held)} addresses")
    for refusal in result.refused:
        print_message(f"{refusal.region.name}: {refusal.reason}")
    for name in result.missing:
        print_message(f"the kernel does not say where {name} is")
