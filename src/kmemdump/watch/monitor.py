# SPDX-License-Identifier: GPL-2.0-or-later
"""Monitors a kernel while it lives: events, panic state, hangs, fresh marks."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kmemdump.errors import KmemdumpError, TargetError
from kmemdump.text import format_size
from kmemdump.watch.end_causes import (
    DumpCause,
    VmAfterDeath,
    WatchEnd,
    judge_qemu_end,
    judge_reset,
    judge_shutdown,
)
from kmemdump.watch.hang_detector import Vcpu
from kmemdump.watch.qmp_events import VmEvent, VmEventKind
from kmemdump.watch.reporter import Reporter, first_line
from kmemdump.watch.settings import Settings
from kmemdump.watch.vm_control import VmControl
from kmemdump.watch.vm_state import SAMPLE_INTERVAL, VmState

__all__ = ["Monitor"]

_POLL = 0.25
"""Seconds between two looks at the panic state."""
_SETTLE = 0.5
"""Seconds for which the log of a dying kernel must stand still."""
_SETTLE_LIMIT = 4.0
_NMI_PATIENCE = 5.0
"""Seconds in which a guest may panic because of an NMI."""


class Monitor:
    """Monitors one kernel, and refreshes its marks."""

    def __init__(
        self,
        control: VmControl,
        state: VmState,
        settings: Settings,
        reporter: Reporter,
    ) -> None:
        self._control = control
        self._state = state
        self._settings = settings
        self._reporter = reporter

    def run(self) -> DumpCause | WatchEnd:
        """
        Monitor the kernel until it is gone, or something is worth a core image.

        :raises StoppedError: If the watch should stop.
        """
        control = self._control
        next_poll = time.monotonic()
        while True:
            self._reporter.check_stopping()
            event = control.next_event(max(next_poll - time.monotonic(), 0.0))
            if event is not None:
                end = self._handle_event(event)
            elif control.gone:
                end = judge_qemu_end(self._state)
            else:
                end = self._poll()
                next_poll = time.monotonic() + _POLL
            if end is not None:
                self._state.samples = 0
                return end

    def _handle_event(self, event: VmEvent) -> DumpCause | WatchEnd | None:
        control, state = self._control, self._state
        now = time.monotonic()
        end: DumpCause | WatchEnd
        match event.kind:
            case VmEventKind.PANIC:
                return DumpCause(f"panic ({event.text})", now)
            case VmEventKind.WATCHDOG:
                return DumpCause(event.text, now)
            case VmEventKind.NMI:
                state.nmi, state.nmi_at = event.text, now
                return None
            case VmEventKind.RESET:
                control.stop()  # While most of the memory is still there.
                end = judge_reset(state, event, now)
            case VmEventKind.SHUTDOWN:
                end = judge_shutdown(control, state, event, now)
        if isinstance(end, WatchEnd) and end.boots_again:
            if event.kind is VmEventKind.RESET:
                control.cont()
            elif not control.reset():
                return WatchEnd("rebooted in an orderly way, but cannot be reset")
        return end

    def _poll(self) -> DumpCause | WatchEnd | None:
        """Read the kernel's memory, and refresh the marks when it is time."""
        state = self._state
        now = time.monotonic()
        kernel = state.read_kernel()
        if kernel.panicked:
            was_reset = self._wait_for_log()
            vm = VmAfterDeath.RESET_BY_GUEST if was_reset else VmAfterDeath.STAYS
            after = f" after {state.nmi}" if state.nmi else ""
            return DumpCause(f"panic{after}", time.monotonic(), vm)
        if state.lost:
            if kernel.leaving:
                text = "gave way to another kernel: no core image"
                return WatchEnd(text, boots_again=True)
            cause = "the kernel vanished from memory"
            return DumpCause(cause, now, VmAfterDeath.RESET_BY_GUEST)
        if state.nmi and now > state.nmi_at + _NMI_PATIENCE:
            cause, state.nmi = state.nmi, ""
            return DumpCause(cause, now, VmAfterDeath.MAY_RUN)
        if kernel.oopsed and not state.oopsed:
            self._wait_for_log()  # It may become a panic.
            state.oopsed = True
            if not state.read_kernel().panicked:
                now = time.monotonic()
                return DumpCause("oops", now, VmAfterDeath.MAY_RUN, oops=True)
            return None
        if self._settings.hang_after and now >= state.next_sample:
            state.next_sample = now + SAMPLE_INTERVAL
            hang = state.find_hang(self._read_vcpus)
            if hang is not None:
                now = time.monotonic()
                return DumpCause(f"frozen: {hang}", now, VmAfterDeath.MAY_RUN)
        if now >= state.next_refresh or (kernel.booted and not state.booted):
            state.booted = state.booted or kernel.booted
            state.next_refresh = now + self._settings.interval
            self._refresh()
            if state.samples:
                self._reporter.report_samples(state.samples)
        return None

    def _wait_for_log(self) -> bool:
        """
        Wait until a dying kernel has logged why.

        It changes its state first and logs afterwards.

        :return: Whether the VM was reset meanwhile.
        """
        control, state = self._control, self._state
        begin = since = time.monotonic()
        head = state.log_head()
        while time.monotonic() - begin < _SETTLE_LIMIT and not control.gone:
            event = control.next_event(0.05)
            if event is not None and event.kind is VmEventKind.RESET:
                control.stop()
                return True
            now = state.log_head()
            if now != head:
                head, since = now, time.monotonic()
            elif event is not None or time.monotonic() - since > _SETTLE:
                break
        return False

    def _refresh(self) -> None:
        control, state = self._control, self._state
        if control.status() != "running":
            return  # Nothing changes, or QEMU does not answer.
        marks = state.marks
        started = time.monotonic()
        try:
            marks.refresh()
        except KmemdumpError as error:
            if isinstance(error, TargetError):
                control.note_error(error)
            if not state.refresh_failed:
                self._reporter.report(f"cannot refresh the marks: {first_line(error)}")
            state.refresh_failed = True
            return
        state.refresh_failed = False
        self._reporter.show_status(
            f"{marks.info.osrelease}: {len(marks.registry)} regions, "
            f"{format_size(marks.size)}, refreshed at "
            f"{marks.capture.time:%H:%M:%S} UTC in {time.monotonic() - started:.2f} s"
        )

    def _read_vcpus(self) -> Sequence[Vcpu | None] | None:
        control = self._control
        if not control.answers:
            return ()
        try:
            if control.target.status() != "running":
                return None
            return self._state.threads.read()
        except TargetError as error:
            control.note_error(error)
            return ()
