# SPDX-License-Identifier: GPL-2.0-or-later
"""Monitors a kernel while it lives: events, panic state, hangs, fresh marks."""

from __future__ import annotations

import time

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.diagnosis.end_patterns import OrderlyEnd
from kmemdump.errors import NotCapturedError
from kmemdump.marking.pace import Pace
from kmemdump.watch.death.act import wait_for_reset
from kmemdump.watch.end_causes import (
    DumpCause,
    VmAfterDeath,
    WatchEnd,
    judge_first_look,
    judge_qemu_end,
    judge_reset,
    judge_shutdown,
    judge_stop,
    judge_watchdog,
)
from kmemdump.watch.events import EventName
from kmemdump.watch.first_look import MarkedKernel
from kmemdump.watch.hang_sampler import HangSampler
from kmemdump.watch.liveness import KernelState
from kmemdump.watch.qmp_events import VmEvent, VmEventKind
from kmemdump.watch.refresher import Refresher
from kmemdump.watch.reporter import Reporter
from kmemdump.watch.settings import INTERVAL, Settings
from kmemdump.watch.vm_control import VmControl
from kmemdump.watch.vm_marks import is_later

__all__ = ["Monitor"]

_POLL = 0.25
"""Seconds between two checks of the panic state."""
_POLL_WITHOUT_EVENTS = 0.05
"""The same if nobody tells of an orderly end, which memory shows for a short time."""
_POLL_AT_END = 0.02
"""The same while the kernel goes down: its last words may be gone with its memory."""
_SETTLE = 0.5
"""Seconds for which the log of a dying kernel must stand still."""
_SETTLE_LIMIT = 4.0
_NMI_PATIENCE = 5.0
"""Seconds in which a guest may panic because of an NMI."""
_OOPS_AGAIN = 60.0
"""Seconds after which an oops is dumped if that was not possible before."""
_LOST = 1.0
"""Seconds in which an event may explain why a kernel is not in memory any more."""
_CLOCK_PATIENCE = 5.0
"""Seconds in which the clock of a kernel moves whose name was overwritten."""


class Monitor:
    """Monitors one kernel from when it is marked until it dies."""

    def __init__(
        self,
        control: VmControl,
        kernel: MarkedKernel,
        settings: Settings,
        reporter: Reporter,
    ) -> None:
        self._control = control
        self._found = kernel
        self._marks = marks = kernel.marks
        self._settings = settings
        self._reporter = reporter
        self._memory = control.target.memory
        self._by_fault = arch_from_elf(control.target.machine).resets_by_fault
        self._sampler = HangSampler(control, marks, settings.hang_after)
        self._kernel = KernelState(True, False, False, False, False)
        self._lost_since: float | None = None
        self._lost_jiffies: int | None = None
        first = self._read_kernel()
        self._booted, self._oopsed = first.booted, first.oopsed
        self._oops_from = 0.0
        """From when on an oops counts."""
        self._started = self._hibernates = False
        self._nmi = ""
        """Why QEMU sent it an NMI, which may make it panic."""
        self._nmi_at = 0.0
        self._next_sample = time.monotonic()
        self._pace = Pace(settings.interval, INTERVAL)
        self._next_refresh = self._next_sample + self._pace.interval
        self._refresher = Refresher(control, marks, reporter, self._pace, settings.seal)

    def postpone_oops(self) -> None:
        """Find the last oops again after a while, since it has no core image yet."""
        self._oopsed, self._oops_from = False, time.monotonic() + _OOPS_AGAIN

    def run(self) -> DumpCause | WatchEnd:
        """
        Monitor the kernel until it is gone, or something is worth a core image.

        :raises StoppedError: If the watch should stop.
        """
        with self._reporter.obeying(self._refresher.obey):
            return self._run()

    def _run(self) -> DumpCause | WatchEnd:
        end: DumpCause | WatchEnd | None = None
        if not self._started:
            self._started = True
            end = self._judge_start()
        next_poll = time.monotonic()
        while end is None:
            self._reporter.check_stopping()
            new = self._control.next_event(max(next_poll - time.monotonic(), 0.0))
            if new is not None:
                end = self._handle_event(new)
            elif self._control.gone:
                end = judge_qemu_end(self._read_kernel())
            else:
                end = self._poll()
                usual = _POLL if self._control.can("events") else _POLL_WITHOUT_EVENTS
                poll = _POLL_AT_END if self._kernel.leaving else usual
                next_poll = time.monotonic() + poll
        self._sampler.count = 0
        return end

    def _judge_start(self) -> DumpCause | WatchEnd | None:
        """Judge what happened before the kernel was marked."""
        found = self._found
        if found.event is not None:
            return self._handle_event(found.event)
        lives = found.ticks or found.ours
        if self._kernel.panicked:
            if lives:
                return None  # It has just died.
            self._wait_for_log()
        return judge_first_look(self._kernel, self._control.status(), lives=lives)

    def _read_kernel(self) -> KernelState:
        """Return the kernel's state, or its last one if it is gone."""
        state = self._marks.read_kernel()
        if state is not None and state.same:
            self._kernel, self._lost_since = state, None
        elif self._lost_since is None:
            self._lost_since = time.monotonic()
            self._lost_jiffies = self._jiffies()
        return self._kernel

    def _handle_event(self, event: VmEvent) -> DumpCause | WatchEnd | None:
        control = self._control
        now = time.monotonic()
        end: DumpCause | WatchEnd
        match event.kind:
            case VmEventKind.PANIC:
                return DumpCause(DeathKind.PANIC, f"panic ({event.text})", now)
            case VmEventKind.WATCHDOG:
                return judge_watchdog(control, event, now)
            case VmEventKind.NMI:
                self._nmi, self._nmi_at = event.text, now
                return None
            case VmEventKind.HIBERNATION:
                self._hibernates = True
                return None
            case VmEventKind.RESET:
                control.stop()  # While most of the memory is still there.
                kernel = self._read_kernel()
                end = judge_reset(kernel, event, now, by_fault=self._by_fault)
            case VmEventKind.SHUTDOWN:
                if self._hibernates:
                    text = "hibernated: no core image"
                    return WatchEnd(text, event=EventName.ORDERLY)
                end = judge_shutdown(
                    control,
                    self._read_kernel(),
                    event,
                    now,
                    by_fault=self._by_fault,
                    in_memory=self._lost_since is None,
                )
        if isinstance(end, WatchEnd) and end.boots_again:
            if event.kind is VmEventKind.RESET:
                if control.has_stopped:  # Somebody may load a snapshot while it stands.
                    control.cont()
            elif not control.reset():
                return WatchEnd("rebooted in an orderly way, but cannot be reset")
        return end

    def _poll(self) -> DumpCause | WatchEnd | None:
        """Read the kernel's memory, and refresh the marks when it is time."""
        now = time.monotonic()
        kernel = self._read_kernel()
        if kernel.panicked:
            was_reset = self._wait_for_log()
            vm = VmAfterDeath.RESET_BY_GUEST if was_reset else VmAfterDeath.STAYS
            after = f" after {self._nmi}" if self._nmi else ""
            return DumpCause(DeathKind.PANIC, f"panic{after}", time.monotonic(), vm)
        if kernel.end is OrderlyEnd.HALT:
            text = "halted in an orderly way: no core image"
            self._reporter.report(text, EventName.ORDERLY)
            return wait_for_reset(self._control, self._reporter)
        if self._lost_since is not None and now - self._lost_since > _LOST:
            return self._judge_loss(now - self._lost_since)
        if self._nmi and now > self._nmi_at + _NMI_PATIENCE:
            cause, self._nmi = self._nmi, ""
            vm = VmAfterDeath.MAY_RUN
            return DumpCause(DeathKind.WATCHDOG, cause, now, vm)
        if kernel.oopsed and not self._oopsed and now >= self._oops_from:
            self._wait_for_log()  # It may become a panic.
            self._oopsed = True
            if not self._read_kernel().panicked:
                now = time.monotonic()
                return DumpCause(DeathKind.OOPS, "oops", now, VmAfterDeath.MAY_RUN)
            return None
        if self._settings.hang_after and now >= self._next_sample:
            hang = self._sampler.sample()
            self._next_sample = now + self._sampler.interval
            if hang is not None:
                vm, now = VmAfterDeath.MAY_RUN, time.monotonic()
                found = not self._found.ours and not self._sampler.has_moved(hang)
                cause = f"frozen: {hang}"
                return DumpCause(DeathKind.HANG, cause, now, vm, hang.cpus, found)
        if now >= self._next_refresh or (kernel.booted and not self._booted):
            self._booted = self._booted or kernel.booted
            problem = self._refresher.refresh()
            self._next_refresh = now + self._pace.interval
            if problem is not None:  # No event tells of an internal error.
                stop = judge_stop(self._control.status(), now)
                if stop is not None:
                    return stop
            if self._sampler.count:
                self._reporter.report_samples(self._sampler.count)
        return None

    def _judge_loss(self, seconds: float) -> DumpCause | WatchEnd | None:
        """
        Return what it means that a kernel is not in memory, which no event explains.

        :param seconds: For how long.
        """
        if self._kernel.leaving:
            text = "gave way to another kernel: no core image"
            return WatchEnd(text, boots_again=True, event=EventName.ORDERLY)
        before, clock = self._lost_jiffies, self._jiffies()
        if before is not None and clock is not None and is_later(before, clock):
            self._marks.liveness.accept_name(self._memory)
            self._reporter.report(
                "its name and version in memory are overwritten; it runs, and is "
                "watched on"
            )
            return None
        if clock is not None and clock == before and seconds < _CLOCK_PATIENCE:
            return None
        cause, now = "the kernel vanished from memory", time.monotonic()
        vm = VmAfterDeath.RESET_BY_GUEST
        return DumpCause(DeathKind.VANISHED, cause, now, vm)

    def _jiffies(self) -> int | None:
        try:
            return self._marks.progress.jiffies(self._memory)
        except NotCapturedError:
            return None

    def _wait_for_log(self) -> bool:
        """
        Wait until a dying kernel has logged why.

        It changes its state first and logs afterwards.

        :return: Whether the VM was reset meanwhile.
        """
        control = self._control
        begin = since = time.monotonic()
        head = self._log_head()
        while time.monotonic() - begin < _SETTLE_LIMIT and not control.gone:
            event = control.next_event(0.05)
            if event is not None and event.kind is VmEventKind.RESET:
                control.stop()
                return True
            now = self._log_head()
            if now != head:
                head, since = now, time.monotonic()
            elif event is not None or time.monotonic() - since > _SETTLE:
                break
        return False

    def _log_head(self) -> int:
        try:
            return self._marks.liveness.log_head(self._memory)
        except NotCapturedError:
            return 0
