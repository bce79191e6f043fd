# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting until a VM has booted a kernel, to mark it."""

from __future__ import annotations

import time
from collections.abc import Callable

from kmemdump.errors import FormatError, KmemdumpError, TargetError, UsageError
from kmemdump.marking.selection import Selection
from kmemdump.text import format_size
from kmemdump.watch.liveness import clock_watch
from kmemdump.watch.reporter import Reporter, first_line
from kmemdump.watch.vm_control import VmControl
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["wait_for_kernel"]

_RETRY = (1.0, 2.0, 3.0, 5.0)
"""Seconds between attempts to attach."""
_REPEAT = 60.0
"""Seconds after which it is reported again why there is no kernel."""
_CLOCK_PATIENCE = 5.0
"""Seconds in which the clock of a kernel that runs must move."""
_POLL = 0.25


def wait_for_kernel(
    control: VmControl,
    selection: Selection,
    reporter: Reporter,
    before: VmMarks | None,
) -> VmMarks | None:
    """
    Wait for a kernel, and mark it.

    :param selection: What to mark.
    :param before: The kernel that this one follows, which may still be in memory.
    :return: None if the VM ends first.
    :raises UsageError: If the selection makes no sense.
    :raises FormatError: If the vmlinux is of no use.
    :raises StoppedError: If the watch should stop.
    """
    vmlinux = str(selection.vmlinux)
    attempt = 0
    started = time.monotonic()
    reports = 0
    while not control.gone:
        reporter.show_status("waiting for a kernel")
        control.target.forget()
        control.drop_events()
        try:
            marks = _attach(control, selection, reporter, before)
        except UsageError:
            raise
        except KmemdumpError as error:
            if isinstance(error, FormatError) and error.where == vmlinux:
                raise  # It will always be the wrong one.
            if reports == 0:
                reporter.report(f"waiting for a kernel ({first_line(error)})")
                reports = 1
            elif reports == 1 and time.monotonic() - started > _REPEAT:
                reporter.report(f"still waiting for a kernel: {first_line(error)}")
                reports = 2
        else:
            control.restore_reboot_action()
            _report_marks(marks, reporter)
            return marks
        reporter.sleep(_RETRY[min(attempt, len(_RETRY) - 1)])
        attempt += 1
    reporter.report_problem("QEMU ended before there was a kernel to mark")
    return None


def _attach(
    control: VmControl,
    selection: Selection,
    reporter: Reporter,
    before: VmMarks | None,
) -> VmMarks:
    target = control.target
    status = target.status()
    if status in ("prelaunch", "inmigrate", "preconfig"):
        raise TargetError(f"the VM is not started (status {status})")
    if before is not None and target.vmcoreinfo() == before.info:
        # Very likely what the reset left in memory.
        _wait_for_clock(clock_watch(before.liveness, target.memory), reporter)
    marks = VmMarks(target, selection)
    if before is not None:
        _wait_for_clock(clock_watch(marks.liveness, target.memory), reporter)
    return marks


def _wait_for_clock(has_moved: Callable[[], bool], reporter: Reporter) -> None:
    deadline = time.monotonic() + _CLOCK_PATIENCE
    while not has_moved():
        if time.monotonic() > deadline:
            raise TargetError("the kernel in memory is that of before the reset")
        reporter.sleep(_POLL)


def _report_marks(marks: VmMarks, reporter: Reporter) -> None:
    areas = marks.capture.marking.areas
    text = (
        f"marked {marks.info.osrelease}: {len(areas)} areas, "
        f"{len(marks.registry)} regions, {format_size(marks.size)}"
    )
    if marks.packed_size:
        text += f" and {format_size(marks.packed_size)} to be packed"
    incomplete = [area for area in areas if area.reason]
    if incomplete:
        text += f"; incomplete: {', '.join(area.name for area in incomplete)}"
    reporter.report(text)
    for area in incomplete:
        reporter.show_status(f"area {area.name}: {area.reason}")
    refused = marks.registry.not_held()
    if refused:
        reporter.report(f"{len(refused)} regions are not held: {refused[0].reason}")
    if marks.liveness.unknown:
        unknown = ", ".join(marks.liveness.unknown)
        reporter.report(f"not found in this kernel: {unknown}")
    reporter.show_status("watching")
