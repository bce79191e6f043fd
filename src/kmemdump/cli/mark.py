# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump mark``."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kmemdump.cli.shared.agent_output import JsonTeller, Teller, held_table, run_folder
from kmemdump.cli.shared.log_output import held_back_warnings, shown_progress
from kmemdump.cli.shared.options import (
    parse_range,
    parse_selection,
    selection_options,
    vmlinux_option,
)
from kmemdump.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from kmemdump.agent import Pace
    from kmemdump.backends.minidump import MinidumpBackend
    from kmemdump.firmware.discovery import ReservedRanges
    from kmemdump.marking.selection import Selection
    from kmemdump.targets import Target

__all__ = ["command"]


@click.command("mark")
@click.argument("target")
@click.option(
    "--backend",
    default="minidump",
    show_default=True,
    type=click.Choice(["minidump", "kinfo"]),
    help="Whose table to register with: Qualcomm's boot firmware; or, for those who "
    "look at a dump of all RAM, Android's debug_kinfo.",
)
@click.option(
    "--smem",
    metavar="ADDRESS:SIZE",
    help="Where SMEM is; by default, where a device tree says, or found by its marks.",
)
@click.option(
    "--device-tree",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The machine's DTB; by default, it is looked for in the machine's memory.",
)
@click.option(
    "--scratch",
    metavar="ADDRESS:SIZE",
    help="Reserved memory for the dump's description; 64 KiB will do. By default, "
    "the device tree's node that is kmemdump,scratch.",
)
@click.option(
    "--scratch-item",
    type=click.IntRange(8, 0xFFFF),
    metavar="NUMBER",
    help="Instead, allocate this item of SMEM for it.",
)
@click.option(
    "--kinfo",
    metavar="ADDRESS:SIZE",
    help="Where the kinfo is to be; by default, the device tree's node that is "
    "google,debug-kinfo.",
)
@click.option(
    "--layout",
    default="series",
    show_default=True,
    type=click.Choice(
        ["series", "meminspect-v3", "android", "android-v2", "android-v1"]
    ),
    help="Whose layout the kinfo is to have: the kernel's kmemdump series', or "
    "Android's.",
)
@click.option(
    "--no-encryption",
    is_flag=True,
    help="Tell the firmware not to encrypt: whoever has the device can read the dump. "
    "Without it, only who has the vendor's key can, or nobody.",
)
@click.option(
    "--off", is_flag=True, help="Take off what was registered, and do nothing else."
)
@click.option(
    "--daemon",
    is_flag=True,
    help="Stay, look again on a timer and on SIGUSR1 or SIGHUP, and take the regions "
    "off at the end.",
)
@click.option(
    "--refresh",
    type=click.FloatRange(0.1, 86400),
    metavar="SECONDS",
    help="How often --daemon looks again, whatever that costs.  [default: 300, or more "
    "so that it takes at most 1 % of one CPU]",
)
@click.option(
    "--keep", is_flag=True, help="Leave the regions there at the end of --daemon."
)
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
    backend: str,
    smem: str | None,
    device_tree: Path | None,
    scratch: str | None,
    scratch_item: int | None,
    kinfo: str | None,
    layout: str,
    no_encryption: bool,
    off: bool,
    daemon: bool,
    refresh: float | None,
    keep: bool,
    areas: tuple[str, ...],
    questions: tuple[str, ...],
    symbols: tuple[str, ...],
    regions: tuple[str, ...],
    vmlinux: Path | None,
    as_json: bool,
) -> int:
    """
    Register regions with a machine's firmware, which dumps them when it dies.

    TARGET is live: this machine, whose reserved memory is written through /dev/mem; or
    qmp:SOCKET: a VM that has its RAM in a shared file. What another owner has
    registered stays as it is.
    """
    from kmemdump.agent import Pace
    from kmemdump.agent.agent import held_signals
    from kmemdump.backends.minidump import MinidumpBackend, is_marked
    from kmemdump.cli.mark_kinfo import mark_kinfo
    from kmemdump.firmware.discovery import ReservedRanges
    from kmemdump.opening import open_target
    from kmemdump.targets.writable import check_writable, open_writable

    if off and daemon:
        raise UsageError("--off and --daemon exclude each other")
    if (refresh or keep) and not daemon:
        raise UsageError(f"{'--refresh' if refresh else '--keep'} needs --daemon")
    if scratch and scratch_item is not None:
        raise UsageError("--scratch and --scratch-item exclude each other")
    if backend == "kinfo":
        if daemon or areas or questions or symbols or regions:
            raise UsageError(
                "a kinfo holds addresses of the kernel's own tables, which never "
                "change: expected no --daemon, and nothing to mark"
            )
        where = parse_range("--kinfo", kinfo) if kinfo else None
        return mark_kinfo(
            target, where, device_tree, layout, vmlinux, off=off, as_json=as_json
        )
    selection = parse_selection(areas, questions, symbols, regions, vmlinux)
    given = ReservedRanges(
        parse_range("--smem", smem) if smem else None,
        parse_range("--scratch", scratch) if scratch else None,
    )
    with ExitStack() as stack:
        # First: threads that come later hold them, too.
        stack.enter_context(held_signals() if daemon else nullcontext())
        stack.enter_context(held_back_warnings())
        machine = stack.enter_context(closing(open_target(target)))
        check_writable(machine)
        teller = (
            JsonTeller(os.environ, machine.name, lines=daemon)
            if as_json
            else Teller(os.environ, machine.name)
        )
        places = _find_places(machine, given, device_tree)
        assert places.smem is not None
        table = stack.enter_context(
            held_table(machine.name, backend, places.smem.start, os.environ)
        )
        memory = open_writable(machine, places.known)
        stack.enter_context(closing(memory))
        open_backend = functools.partial(
            MinidumpBackend,
            memory,
            places.smem,
            scratch=places.scratch if scratch_item is None else None,
            scratch_item=scratch_item,
            no_encryption=no_encryption,
        )
        if off:
            if is_marked(memory, places.smem):
                open_backend().withdraw()
            teller.say("nothing of ours is registered any more")
            return ExitCode.DONE
        pace = Pace(refresh) if daemon else None
        return _mark(
            machine, selection, open_backend, places, table, teller, pace, keep
        )


def _mark(
    machine: Target,
    selection: Selection,
    open_backend: Callable[[], MinidumpBackend],
    places: ReservedRanges,
    table: str,
    teller: Teller,
    pace: Pace | None,
    keep: bool,
) -> int:
    """
    Register, and stay if that is wanted.

    :param pace: When to look again; ``None`` does not stay.
    """
    from kmemdump.agent import Agent
    from kmemdump.marking.registration import Registration

    with shown_progress():
        marker = Registration(
            machine, selection, lambda _: open_backend(), keep_out=places.known
        )
    teller.tell(marker.last, pace.interval() if pace else None)
    if pace is not None:
        folder = run_folder(os.environ)
        with closing(
            Agent(marker, machine.name, table, pace, teller.tell, folder)
        ) as agent:
            teller.ready()
            agent.run()
            teller.stopping()
        if keep:
            teller.say("stopped; the regions are left")
        else:
            marker.close()
            open_backend().withdraw()
            teller.say("stopped; the regions are taken off")
    return ExitCode.DONE if marker.last.complete else ExitCode.INCOMPLETE


def _find_places(
    machine: Target, given: ReservedRanges, tree: Path | None
) -> ReservedRanges:
    from kmemdump.firmware.discovery import find_live_reserved, find_reserved
    from kmemdump.targets.live import LiveTarget

    if isinstance(machine, LiveTarget):
        return find_live_reserved(given, tree)
    return find_reserved(given, machine.memory, machine.name, tree)
