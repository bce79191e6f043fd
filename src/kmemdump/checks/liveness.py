# SPDX-License-Identifier: GPL-2.0-or-later
"""Check by what ``watch`` would learn of a death: events, memory, counters."""

from __future__ import annotations

import time

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.checks.point import Point, capture_now, missing, ok, warning
from kmemdump.errors import NotCapturedError, TargetError
from kmemdump.targets.qmp import QmpTarget
from kmemdump.targets.qmp_channel import QmpChannel
from kmemdump.targets.vm import VmTarget
from kmemdump.text import printable
from kmemdump.watch.reporter import first_line
from kmemdump.watch.vcpus import VcpuThreads
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["check_events", "check_hangs", "check_panics"]

_EVENT_PATIENCE = 2.0
"""Seconds that an event may take."""
_CLOCK_PATIENCE = 5.0
"""Seconds in which the clock of a running kernel must move, as for ``watch``."""
_POLL = 0.05
_MAX_EVENTS = 64
_OF_A_LOOK = ("STOP", "RESUME", "DUMP_COMPLETED")
"""Events that reading the registers causes."""


def check_events(client: QmpChannel, status: str) -> Point:
    """
    Check that events come: a look at the VM has just caused some.

    :param status: The VM's run state before the look.
    """
    seen: list[str] = []
    deadline = time.monotonic() + _EVENT_PATIENCE
    while len(seen) < _MAX_EVENTS:
        event = client.event(max(deadline - time.monotonic(), 0.0))
        if event is None:
            break
        name = str(event.get("event"))
        seen.append(name)
        if name in _OF_A_LOOK:
            return ok("events", f"they come: {printable(', '.join(seen))}")
    if status != "running" or _has_kvm(client):
        # Through libvirt, registers of KVM's CPUs are read without stopping the VM.
        return warning("events", "the look at the VM caused none, so none was tried")
    return missing(
        "events",
        "the look at the VM caused none: resets and reported panics would be missed",
        "name a QMP socket of QEMU's own, and no proxy",
    )


def _has_kvm(client: QmpChannel) -> bool:
    try:
        answer = client.execute("query-kvm")
    except TargetError:
        return False
    return isinstance(answer, dict) and answer.get("enabled") is True


def check_panics(marks: VmMarks) -> Point:
    """Check that a panic would be seen in the kernel's memory."""
    name = "panic"
    state = marks.read_kernel()
    if state is None or not state.same:
        return missing(name, "the kernel's memory is gone", "check the VM again")
    if state.panicked:
        return missing(
            name,
            "the kernel has panicked already",
            capture_now(marks.target.name),
        )
    if marks.lacking is not None:
        return warning(
            name,
            "a panic or an oops is known only by the lines that the kernel logs: "
            f"{marks.lacking.splitlines()[0]}",
            "give --vmlinux FILE",
        )
    return ok(name, "a panic or an oops shows in the kernel's memory")


def check_hangs(target: VmTarget, marks: VmMarks, status: str) -> Point:
    """
    Check that frozen CPUs would be found.

    :param status: The VM's run state.
    """
    name = "hang"
    try:
        threads = VcpuThreads(target.client, arch_from_elf(target.machine))
        vcpus = threads.read()
    except TargetError as error:
        return missing(name, f"its CPUs are not shown: {first_line(error)}")
    if not isinstance(target, QmpTarget):
        return _check_clock(marks)
    unknown = [i for i, vcpu in enumerate(vcpus) if vcpu is None]
    if unknown or not vcpus:
        return missing(
            name,
            f"the state of CPU {', '.join(map(str, unknown)) or '0'} is not in a known "
            "form: hangs would not be found",
        )
    if not marks.progress.has_counters:
        return warning(
            name,
            "the counters of CPUs are not known: a CPU hangs if it always has "
            "interrupts off",
            "give --vmlinux FILE",
        )
    if any(vcpu is not None and vcpu.cpu_time is None for vcpu in vcpus):
        return warning(
            name,
            "the threads of QEMU's CPUs are not seen on this host: on an overloaded "
            "host, a VM that gets no CPU time looks frozen",
            "run kmemdump in the PID namespace of QEMU",
        )
    if status == "running" and not _ticks(marks):
        return warning(
            name,
            f"the kernel's clock has stood still for {_CLOCK_PATIENCE:.0f} s: it is "
            "idle, or hangs already",
        )
    counted = len(marks.progress.cpus(target.memory))
    return ok(
        name,
        f"counters of {counted} CPUs and {len(vcpus)} vCPU threads are known"
        + (", the clock moves" if status == "running" else ""),
    )


def _check_clock(marks: VmMarks) -> Point:
    """Check what is left where the monitor does not show its CPUs."""
    if marks.progress.jiffies(marks.target.memory) is None:
        return missing("hang", "neither CPUs nor the kernel's clock are known")
    return warning(
        "hang", "CPUs are not shown: a hang is known by the kernel's clock alone"
    )


def _ticks(marks: VmMarks) -> bool:
    has_moved = marks.clock_watch()
    deadline = time.monotonic() + _CLOCK_PATIENCE
    while True:
        try:
            if has_moved():
                return True
        except NotCapturedError:
            return False
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
