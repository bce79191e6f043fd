# SPDX-License-Identifier: GPL-2.0-or-later
"""Check a VM: what ``watch`` would have if its kernel died now."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from kmemdump.checks.disk import check_disk
from kmemdump.checks.findings import Findings
from kmemdump.checks.kernel import check_kernel, check_questions
from kmemdump.checks.liveness import check_events, check_hangs, check_panics
from kmemdump.checks.point import (
    Point,
    Rehearsal,
    State,
    capture_now,
    missing,
    ok,
    warning,
)
from kmemdump.checks.qemu_machine import advise, check_actions, check_devices
from kmemdump.checks.rehearsal import Written, rehearse
from kmemdump.checks.wanted import Wanted
from kmemdump.coreimage import Death
from kmemdump.errors import KmemdumpError
from kmemdump.targets.qmp import QmpTarget
from kmemdump.targets.vm import VmTarget
from kmemdump.text import format_memory
from kmemdump.watch.dump import write_dump
from kmemdump.watch.reporter import first_line
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["check_vm"]

_NOT_STARTED = ("prelaunch", "inmigrate", "preconfig")
_DEAD = ("guest-panicked", "internal-error", "shutdown", "watchdog")
_WITHOUT_QMP = (
    "it has no QMP: there are no events, and CPUs are not shown; a panic is found in "
    "memory"
)


def check_vm(target: VmTarget, wanted: Wanted, findings: Findings) -> None:
    """
    Check a VM, without pausing it longer than ``watch`` does when it marks it.

    :raises KmemdumpError: If it does not answer any more.
    """
    status = target.status()
    findings.add(_check_status(target, status))
    if isinstance(target, QmpTarget):
        panic, note = check_devices(target.client)
        reports_panic = panic.state is State.OK
        findings.add(check_actions(target.client, reports_panic), panic, note)
    else:
        findings.add(warning("monitor", _WITHOUT_QMP))
    try:
        marks = VmMarks(target, wanted.selection)
        if status == "running" and not marks.capture.complete:
            marks.refresh()  # A list may be torn while it is walked.
    except KmemdumpError as error:
        findings.add(
            _check_memory(target),
            _check_registers(target),
            missing("kernel", first_line(error), _advice_without_kernel(status)),
            check_disk(wanted, None),
        )
        return
    findings.release = marks.info.osrelease
    findings.add(
        _check_memory(target),
        _describe_registers(len(marks.capture.kernel.registers)),
        *check_kernel(marks.capture),
        check_panics(marks),
        check_hangs(target, marks, status),
    )
    if isinstance(target, QmpTarget):
        findings.add(check_events(target.client, status))
    rehearsed = rehearse(partial(_write, marks, wanted), wanted.folder)
    findings.core = rehearsed.core
    findings.add(
        check_questions(marks.capture, rehearsed.inspection),
        *rehearsed.points,
        check_disk(wanted, rehearsed.core),
    )


def _write(marks: VmMarks, wanted: Wanted, path: Path, reader: str | None) -> Written:
    """Write the core image as after a death, but of a kernel that goes on."""
    start = time.monotonic()
    dump = write_dump(marks, path, Death(), wanted.seal_for(reader))
    core = Rehearsal(dump.size, dump.named - start, dump.finished - start)
    return Written(core, len(dump.missing), dump.problem)


def _check_status(target: VmTarget, status: str) -> Point:
    name = "status"
    if status == "running":
        return ok(name, "the VM runs")
    if status in _DEAD:
        return missing(
            name,
            f"the VM is dead already: {status}",
            capture_now(target.name),
        )
    if status in _NOT_STARTED:
        return missing(name, f"the VM is not started: {status}", "start it")
    return warning(
        name,
        f"the VM does not run: {status}; neither hangs nor events can be tried",
        "let it run, and check it again",
    )


def _check_memory(target: VmTarget) -> Point:
    memory = target.memory
    if not memory.ranges:
        return missing("memory", "none of the guest's is known")
    size = format_memory(sum(item.size for item in memory.ranges))
    text = f"{size}, {getattr(memory, 'name', target.name)}"
    if getattr(memory, "outlives_process", False):
        return ok("memory", text)
    return warning(
        "memory",
        f"{text}: if it ends, what was marked last is left, and nothing of later",
        advise(target.client, "memory") if isinstance(target, QmpTarget) else "",
    )


def _check_registers(target: VmTarget) -> Point:
    """Check the registers of a VM without a kernel."""
    try:
        if cpus := len(target.registers()):
            return _describe_registers(cpus)
        why = "none in 64-bit mode: the VM is in its firmware"
    except KmemdumpError as error:
        why = first_line(error)
    return missing("registers", why)


def _describe_registers(cpus: int) -> Point:
    if not cpus:
        return missing(
            "registers",
            "there are none: tasks that run on a CPU would have no stack trace",
        )
    return ok("registers", f"of {cpus} CPU{'s' if cpus > 1 else ''}")


def _advice_without_kernel(status: str) -> str:
    if status in _NOT_STARTED:
        return "start the VM"
    return (
        "if it boots, wait for its kernel and check it again; watch waits, too"
        if status == "running"
        else "let the VM run until its kernel has booted"
    )
