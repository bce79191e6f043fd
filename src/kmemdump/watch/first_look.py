# SPDX-License-Identifier: GPL-2.0-or-later
"""
Waits for a VM's kernel, and looks at it for the first time.

RAM holds what was there before: after a reset the kernel that died, after the start of
QEMU what a file of an earlier life had. No kernel is marked unless it is seen to tick,
or a CPU runs it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.errors import FormatError, KmemdumpError, TargetError, UsageError
from kmemdump.kernel.build_cache import BuildCache
from kmemdump.marking.selection import Selection
from kmemdump.targets.qmp_channel import QmpTimeoutError
from kmemdump.text import format_size
from kmemdump.vmcoreinfo import VmcoreInfo
from kmemdump.watch.boot import is_run
from kmemdump.watch.events import EventName
from kmemdump.watch.qmp_events import VmEvent, VmEventKind
from kmemdump.watch.reporter import Reporter, first_line
from kmemdump.watch.vcpus import VcpuThreads
from kmemdump.watch.vm_control import VmControl
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["FirstLook", "MarkedKernel"]

_RETRY = (1.0, 2.0, 3.0, 5.0)
"""Seconds between attempts to attach."""
_REPEAT = 60.0
"""Seconds after which the lack of a kernel is reported again."""
_CLOCK_PATIENCE = 5.0
"""Seconds in which the clock of a running kernel must move."""
_POLL = 0.05
_LOOKS = 5
"""How often the CPUs are looked at before none is said to run the kernel."""
_ENDS = (VmEventKind.PANIC, VmEventKind.RESET, VmEventKind.SHUTDOWN)


@dataclass(frozen=True, slots=True)
class MarkedKernel:
    """A kernel that was marked."""

    marks: VmMarks
    ticks: bool
    """Whether it was seen to live."""
    ours: bool
    """Whether it booted while the VM was watched, so that we may act on its death."""
    event: VmEvent | None = None
    """What happened to it before it was marked."""


class FirstLook:
    """
    Waits for the kernels of one VM.

    :param selection: What to mark.
    :param builds: What kernels of one build share.
    """

    def __init__(
        self,
        control: VmControl,
        selection: Selection,
        reporter: Reporter,
        builds: BuildCache | None = None,
    ) -> None:
        self._control = control
        self._selection = selection
        self._reporter = reporter
        self._builds = builds
        self._threads: VcpuThreads | None = None
        self._before: VmMarks | None = None
        """The previous kernel, which may still be in memory."""
        self._stale: VmcoreInfo | None = None
        """What was in memory when no CPU ran it."""
        self._seen_without = False
        """Whether the VM was seen without a kernel, so that the next one boots."""

    def wait(self) -> MarkedKernel | None:
        """
        Wait for the next kernel, and mark it.

        :return: None if the VM ends first.
        :raises UsageError: If the selection makes no sense.
        :raises FormatError: If the vmlinux is of no use.
        :raises StoppedError: If the watch should stop.
        """
        control, reporter = self._control, self._reporter
        vmlinux = str(self._selection.vmlinux)
        attempt = reports = 0
        started = time.monotonic()
        event: VmEvent | None = None
        stopped = False
        control.drop_events()
        while not control.gone:
            reporter.show_status("waiting for a kernel")
            control.target.forget()
            try:
                found = self._look(event)
            except UsageError:
                raise
            except KmemdumpError as error:
                if isinstance(error, FormatError) and error.where == vmlinux:
                    raise  # It will always be the wrong one.
                if reports == 0:
                    text = f"waiting for a kernel ({first_line(error)})"
                    reporter.report(text, EventName.WAITING)
                    reports = 1
                elif reports == 1 and time.monotonic() - started > _REPEAT:
                    text = f"still waiting for a kernel: {first_line(error)}"
                    reporter.report(text, EventName.WAITING)
                    reports = 2
                if stopped:
                    control.cont()
            else:
                control.restore_reboot_action()
                _report_marks(found.marks, reporter)
                self._before = found.marks
                return found
            event = self._wait_for_end(_RETRY[min(attempt, len(_RETRY) - 1)])
            # While most of the memory is still there.
            reset = event is not None and event.kind is VmEventKind.RESET
            stopped = reset and control.stop()
            attempt += 1
        if self._before is not None and not control.can("events"):
            reporter.report("QEMU ended")  # It ran on with a dead kernel.
        else:
            reporter.report_problem("QEMU ended before there was a kernel to mark")
        return None

    def _wait_for_end(self, seconds: float) -> VmEvent | None:
        """Wait some time, or until a kernel dies that is not marked yet."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self._control.gone:
            self._reporter.check_stopping()
            event = self._control.next_event(min(left, 0.1))
            if event is not None and event.guest and event.kind in _ENDS:
                return event
        return None

    def _look(self, event: VmEvent | None) -> MarkedKernel:
        target, before = self._control.target, self._before
        status = target.status()
        if status in ("prelaunch", "inmigrate", "preconfig"):
            # What is restored or migrated to here may be dead already.
            self._seen_without = status != "inmigrate"
            raise TargetError(f"the VM is not started (status {status})")
        try:
            info = target.vmcoreinfo()
        except QmpTimeoutError:
            raise
        except KmemdumpError:
            self._seen_without = True
            raise
        if event is not None and event.kind is VmEventKind.RESET:
            return self._look_after_reset(info, event)
        runs = self._is_run(info)
        if runs is False:
            self._stale, self._seen_without = info, True
            raise TargetError("the kernel in memory does not run: it is of before")
        if runs is None and before is not None and info.raw == before.info.raw:
            # Known by a few bytes: it may stay like this for days.
            state = before.read_kernel()
            if state is not None and state.panicked:
                raise TargetError("the kernel in memory has panicked, and stays so")
        marks = VmMarks(target, self._selection, self._builds)
        state = marks.read_kernel()
        dead = state is None or state.panicked
        # A log is silent for long times; a CPU that runs the kernel suffices.
        patience = 0.0 if runs and marks.lacking else _CLOCK_PATIENCE
        ticks = status == "running" and not dead and self._ticks(marks, patience)
        if not ticks:
            # Without a CPU that runs it, only a clock tells that it is not stale.
            if before is not None and marks.boot == before.boot:
                raise TargetError("the kernel in memory is that of before the reset")
            if runs is None and status == "running":
                raise TargetError("the kernel in memory stands still")
        ours = before is not None or event is not None or self._seen_without
        return MarkedKernel(marks, ticks, ours, event)

    def _look_after_reset(self, info: VmcoreInfo, event: VmEvent) -> MarkedKernel:
        """Look at a kernel that was reset before it was marked, if it had panicked."""
        before = self._before
        stale = self._stale is not None and self._stale.raw == info.raw
        if stale or (before is not None and before.info.raw == info.raw):
            raise TargetError("reset before its kernel was found")
        marks = VmMarks(self._control.target, self._selection, self._builds)
        state = marks.read_kernel()
        if state is None or not state.panicked:
            raise TargetError("reset before its kernel was marked")
        return MarkedKernel(marks, ticks=False, ours=True, event=event)

    def _is_run(self, info: VmcoreInfo) -> bool | None:
        target = self._control.target
        if self._threads is None:
            self._threads = VcpuThreads(target.client, arch_from_elf(target.machine))
        runs: bool | None = None
        for _ in range(_LOOKS):
            runs = is_run(target.client, info, self._threads)
            if runs is not False:
                break
            self._reporter.sleep(_POLL)
        return runs

    def _ticks(self, marks: VmMarks, patience: float) -> bool:
        """Wait until the kernel's clock moves; return whether it does."""
        has_moved = marks.clock_watch()
        deadline = time.monotonic() + patience
        while not has_moved():
            if time.monotonic() > deadline:
                return False
            self._reporter.sleep(_POLL)
        return True


def _report_marks(marks: VmMarks, reporter: Reporter) -> None:
    areas = marks.capture.marking.areas
    text = (
        f"marked {marks.info.osrelease}: {len(areas)} areas, "
        f"{len(marks.registry)} regions, {format_size(marks.size)}"
    )
    if marks.packed_size:
        text += f" and {format_size(marks.packed_size)} of symbols and types"
    incomplete = [area for area in areas if area.reason]
    if incomplete and len(incomplete) < len(areas) - 1:
        text += f"; incomplete: {', '.join(area.name for area in incomplete)}"
    if marks.lacking is not None:
        text += f"; its state is known from its log alone: {marks.lacking}"
    reporter.report(
        text,
        EventName.MARKED,
        release=marks.info.osrelease,
        regions=len(marks.registry),
        size=marks.size,
        complete=not incomplete,
    )
    if marks.capture.found_vmlinux is not None:
        reporter.report(f"symbols and types of {marks.capture.found_vmlinux}")
    for area in incomplete:
        reporter.show_status(f"area {area.name}: {area.reason}")
    refused = marks.registry.not_held()
    if refused:
        reporter.report(f"{len(refused)} regions are not held: {refused[0].reason}")
    if marks.lacking is None and marks.progress.unknown:
        unknown = ", ".join(marks.progress.unknown)
        reporter.report(f"not found in this kernel: {unknown}")
    reporter.show_status("watching")
