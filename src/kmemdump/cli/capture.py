# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump capture``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kmemdump.cli.shared.agent_output import run_folder
from kmemdump.cli.shared.messages import print_line, print_message
from kmemdump.cli.shared.options import (
    SelectionOptions,
    TargetOptions,
    core_option,
    no_vmlinux_option,
    opened_target,
    parse_selection,
    selection_options,
    target_options,
)
from kmemdump.cli.shared.outputs import check_output, force_option
from kmemdump.cli.shared.sealing import seal_options
from kmemdump.errors import ExitCode, TargetError, UsageError
from kmemdump.text import format_size

if TYPE_CHECKING:
    from kmemdump.marking.capture import Capture
    from kmemdump.memory.ranges import Range
    from kmemdump.sealing import Seal
    from kmemdump.targets import Target

__all__ = ["command"]


@click.command("capture")
@click.argument("target")
@core_option
@force_option
@click.option("--pause", is_flag=True, help="Pause a running VM during the capture.")
@seal_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@no_vmlinux_option
@selection_options
@target_options
def command(
    target: str,
    output: Path,
    force: bool,
    pause: bool,
    seal: Seal | None,
    as_json: bool,
    no_vmlinux: bool,
    selected: SelectionOptions,
    reading: TargetOptions,
) -> int:
    """
    Mark TARGET and write its core image now.

    \b
    kmemdump capture qmp:vm.qmp -o vm.core
    kmemdump capture vmcore -o small.core
    kmemdump capture pid:4711 -o log.core --area kmsg
    kmemdump capture vm.ram -o vm.core --ask 'files 2' --ask devices.py

    TARGET is this machine (live), a running, paused or dead VM (qmp:SOCKET,
    libvirt:DOMAIN, or pid:PID of any virtual machine monitor), a raw RAM image, or a
    vmcore. If 'kmemdump watch' watches the VM, watch writes the core image.
    """
    from kmemdump.marking.capture import look

    check_output(output, force, target)
    if ":" in target and (watch := _find_watch(target)) is not None:
        if pause or any(selected):
            raise UsageError(
                f"{target}: 'kmemdump watch' watches it, and captures what it marks; "
                "leave out the options, or stop the watch"
            )
        return _capture_by_watch(*watch, output, as_json, seal)

    # A VM that is paused does not wait for a download.
    search: Mapping[str, str] = {} if pause else os.environ
    selection = parse_selection(selected, None if no_vmlinux else search)
    with (
        opened_target(target, reading) as opened,
        _paused(opened) if pause else nullcontext(),
    ):
        capture = look(opened, selection, packing=True)
        missing = capture.save(output, seal=seal)
    if capture.found_vmlinux is not None:
        print_message(
            f"the kernel's own symbols or types are incomplete: those of "
            f"{capture.found_vmlinux}, which has its build id, are in the core image"
        )
    _print_problems(capture)
    for item in missing:
        print_message(f"memory at {item} is missing")
    size = output.stat().st_size
    if as_json:
        click.echo(json.dumps(_record(output, size, capture, missing), indent=2))
    else:
        print_line(
            f"{output}: {capture.kernel.vmcoreinfo.osrelease}, "
            f"{len(capture.marking.areas)} areas, {format_size(size)}"
        )
    complete = capture.complete and not missing
    return ExitCode.DONE if complete else ExitCode.INCOMPLETE


def _find_watch(target: str) -> tuple[Path, str] | None:
    from kmemdump.watch.control.client import find_watch

    return find_watch(run_folder(os.environ), target)


def _capture_by_watch(
    control: Path, vm: str, output: Path, as_json: bool, seal: Seal | None
) -> int:
    from kmemdump.watch.control.client import ask

    wanted = {} if seal is None else {"seal": seal.recipients}
    done = ask(control, do="capture", vm=vm, path=str(output.absolute()), **wanted)
    if done["event"] != "captured":
        raise TargetError(f"{vm}: {done['text']}")
    if as_json:
        click.echo(json.dumps(done, indent=2))
    else:
        print_line(str(done["text"]))
    return ExitCode.DONE if done.get("complete") else ExitCode.INCOMPLETE


def _record(
    output: Path, size: int, capture: Capture, missing: Sequence[Range]
) -> dict[str, object]:
    return {
        "version": 1,
        "core": str(output),
        "size": size,
        "release": capture.kernel.vmcoreinfo.osrelease,
        "found_vmlinux": str(capture.found_vmlinux) if capture.found_vmlinux else None,
        "areas": [
            {"name": area.name, "complete": not area.reason, "reason": area.reason}
            for area in capture.marking.areas
        ],
        "missing": [
            {"address": hex(item.start), "size": item.size} for item in missing
        ],
    }


def _paused(target: Target) -> AbstractContextManager[None]:
    """Pause a VM, so that all of its memory is from one moment."""
    from kmemdump.targets.vm import VmTarget, paused

    if not isinstance(target, VmTarget):
        raise UsageError(
            f"{target.name}: only a VM (qmp:SOCKET or pid:PID) can be paused"
        )
    return paused(target)


def _print_problems(capture: Capture) -> None:
    problem = capture.kernel.problem or capture.kernel.lacks
    if problem:
        print_message(problem)
        held = [area.name for area in capture.marking.areas if not area.reason]
        if held:
            print_message(f"complete without it: {', '.join(held)}")
        return
    for area in capture.marking.areas:
        if area.reason:
            print_message(f"area {area.name} is incomplete: {area.reason}")
