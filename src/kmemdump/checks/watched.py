# SPDX-License-Identifier: GPL-2.0-or-later
"""Check a VM that ``kmemdump watch`` watches, through its watch."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from kmemdump.checks.disk import check_disk
from kmemdump.checks.findings import Findings
from kmemdump.checks.kernel import check_image
from kmemdump.checks.point import Point, Rehearsal, missing, ok, warning
from kmemdump.checks.rehearsal import Written, rehearse
from kmemdump.checks.wanted import Wanted
from kmemdump.errors import TargetError
from kmemdump.text import format_duration, format_size, printable
from kmemdump.watch.control.client import ask
from kmemdump.watch.control.status import VmRecord, WatchStatus, read_watch

__all__ = ["check_watched"]


def check_watched(control: Path, name: str, wanted: Wanted, findings: Findings) -> None:
    """
    Check a VM that is watched; its watch has its monitor, and writes the core image.

    :param control: Control socket of the watch.
    :param name: The VM's name there.
    :raises KmemdumpError: If the watch does not answer.
    """
    watch, vm = _find(control, name)
    findings.release = vm.release
    findings.add(_check_watch(watch, vm), _check_marks(vm))
    if vm.error is not None and vm.error_time is not None:
        age = format_duration(max(time.time() - vm.error_time, 0))
        findings.add(
            warning("errors", f"the last one, {age} ago: {printable(vm.error)}")
        )
    folder = Path(watch.folder)
    rehearsed = rehearse(partial(_capture, control, name), folder)
    findings.core = rehearsed.core
    findings.add(
        *([check_image(rehearsed.inspection)] if rehearsed.inspection else []),
        *rehearsed.points,
        check_disk(replace(wanted, folder=folder), rehearsed.core),
    )


def _find(control: Path, name: str) -> tuple[WatchStatus, VmRecord]:
    watch = read_watch(control)
    for vm in watch.vms:
        if vm.vm == name:
            return watch, vm
    raise TargetError(f"{name}: is not watched any more")


def _capture(control: Path, name: str, path: Path, reader: str | None) -> Written:
    """Let the watch write a core image, which it does not count."""
    start = time.monotonic()
    seal = [] if reader is None else [reader]
    answer = ask(control, do="rehearse", vm=name, path=str(path), seal=seal)
    seconds = time.monotonic() - start
    if answer.get("event") != "captured":
        raise TargetError(f"{name}: {answer.get('text')}")
    core = Rehearsal(path.stat().st_size, seconds, seconds)
    return Written(core, 0, None)


def _check_watch(watch: WatchStatus, vm: VmRecord) -> Point:
    name = "watch"
    text = f"process {watch.pid} watches it as {vm.vm}"
    if vm.state != "watched":
        return missing(name, f"{text}; it is {vm.state}: {printable(vm.doing)}")
    if vm.worker_deaths:
        return warning(name, f"{text}; its worker died {vm.worker_deaths} times")
    return ok(name, text)


def _check_marks(vm: VmRecord) -> Point:
    name = "marks"
    if vm.marked is None:
        return missing(name, "its kernel is not marked")
    now = time.time()
    age = max(now - vm.marked, 0)
    text = (
        f"{vm.regions} regions, {format_size(vm.size)}, looked at "
        f"{format_duration(age)} ago"
    )
    if vm.is_late(now):
        every = format_duration(vm.interval)
        return missing(name, f"{text}, expected every {every}")
    return ok(name, text)
