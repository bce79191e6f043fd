# SPDX-License-Identifier: GPL-2.0-or-later
"""Monitors a kernel while it lives: events, panic state, hangs, fresh marks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.errors import KmemdumpError, NotCapturedError, TargetError
from kmemdump.text import format_size
from kmemdump.watch.answers import describe_lost
from kmemdump.watch.control.commands import CaptureCommand, Command, RefreshCommand
from kmemdump.watch.end_causes import (
    DumpCause,
    VmAfterDeath,
    WatchEnd,
    judge_qemu_end,
    judge_reset,
    judge_shutdown,
)
from kmemdump.watch.events import EventName
from kmemdump.watch.hang_detector import CpuSample, Hang, HangDetector, Sample, Vcpu
from kmemdump.watch.liveness import KernelState
from kmemdump.watch.qmp_events import VmEvent, VmEventKind
from kmemdump.watch.reporter import Reporter, first_line
from kmemdump.watch.settings import Settings
from kmemdump.watch.vcpus import VcpuThreads
from kmemdump.watch.vm_control import VmControl
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["Monitor"]

_POLL = 0.25
"""Seconds between two checks of the panic state."""
_SAMPLE_INTERVAL = 1.0
"""Seconds between two samples of the hang detector."""
_SETTLE = 0.5
"""Seconds for which the log of a dying kernel must stand still."""
_SETTLE_LIMIT = 4.0
_NMI_PATIENCE = 5.0
"""Seconds in which a guest may panic because of an NMI."""
_OOPS_AGAIN = 60.0
"""Seconds after which an oops is dumped if that was not possible before."""
_LOST = 1.0
"""Seconds in which an event may explain why a kernel is not in memory any more."""


class Monitor:
    """Monitors one kernel from when it is marked until it dies."""

    def __init__(
        self,
        control: VmControl,
        marks: VmMarks,
        settings: Settings,
        reporter: Reporter,
    ) -> None:
        self._control = control
        self._marks = marks
        self._settings = settings
        self._reporter = reporter
        target = control.target
        self._memory = target.memory
        self._threads = VcpuThreads(target.client, arch_from_elf(target.machine))
        self._detector = HangDetector(settings.hang_after, _SAMPLE_INTERVAL)
        self._kernel = KernelState(True, False, False, False, False)
        self._lost_since: float | None = None
        first = self.read_kernel()
        self._booted, self._oopsed = first.booted, first.oopsed
        self._oops_from = 0.0
        """From when on an oops counts."""
        self._nmi = ""
        """Why QEMU sent it an NMI, which may make it panic."""
        self._nmi_at = 0.0
        self._cpus: dict[int, CpuSample] = {}
        """The last sample, and the time then."""
        self._jiffies: int | None = None
        self._samples = 0
        """Samples of the hang detector since the last alarm."""
        self._suspects = False
        """Whether a CPU without counters had interrupts off in the last sample."""
        self._next_sample = time.monotonic()
        self._next_refresh = self._next_sample + settings.interval
        self._refresh_failed = False

    def read_kernel(self) -> KernelState:
        """Return the kernel's state, or its last one if it is gone."""
        state = self._marks.read_kernel()
        if state is not None and state.same:
            self._kernel, self._lost_since = state, None
        elif self._lost_since is None:
            self._lost_since = time.monotonic()
        return self._kernel

    def postpone_oops(self) -> None:
        """Find the last oops again after a while, since it has no core image yet."""
        self._oopsed, self._oops_from = False, time.monotonic() + _OOPS_AGAIN

    def run(self) -> DumpCause | WatchEnd:
        """
        Monitor the kernel until it is gone, or something is worth a core image.

        :raises StoppedError: If the watch should stop.
        """
        with self._reporter.obeying(self._obey):
            return self._run()

    def _run(self) -> DumpCause | WatchEnd:
        control = self._control
        next_poll = time.monotonic()
        while True:
            self._reporter.check_stopping()
            event = control.next_event(max(next_poll - time.monotonic(), 0.0))
            if event is not None:
                end = self._handle_event(event)
            elif control.gone:
                end = judge_qemu_end(self.read_kernel())
            else:
                end = self._poll()
                next_poll = time.monotonic() + _POLL
            if end is not None:
                self._samples = 0
                return end

    def _handle_event(self, event: VmEvent) -> DumpCause | WatchEnd | None:
        control = self._control
        now = time.monotonic()
        end: DumpCause | WatchEnd
        match event.kind:
            case VmEventKind.PANIC:
                return DumpCause(DeathKind.PANIC, f"panic ({event.text})", now)
            case VmEventKind.WATCHDOG:
                return DumpCause(DeathKind.WATCHDOG, event.text, now)
            case VmEventKind.NMI:
                self._nmi, self._nmi_at = event.text, now
                return None
            case VmEventKind.RESET:
                control.stop()  # While most of the memory is still there.
                end = judge_reset(self.read_kernel(), event, now)
            case VmEventKind.SHUTDOWN:
                end = judge_shutdown(control, self.read_kernel(), event, now)
        if isinstance(end, WatchEnd) and end.boots_again:
            if event.kind is VmEventKind.RESET:
                control.cont()
            elif not control.reset():
                return WatchEnd("rebooted in an orderly way, but cannot be reset")
        return end

    def _poll(self) -> DumpCause | WatchEnd | None:
        """Read the kernel's memory, and refresh the marks when it is time."""
        now = time.monotonic()
        kernel = self.read_kernel()
        if kernel.panicked:
            was_reset = self._wait_for_log()
            vm = VmAfterDeath.RESET_BY_GUEST if was_reset else VmAfterDeath.STAYS
            after = f" after {self._nmi}" if self._nmi else ""
            return DumpCause(DeathKind.PANIC, f"panic{after}", time.monotonic(), vm)
        # No event explains it.
        if self._lost_since is not None and now - self._lost_since > _LOST:
            if kernel.leaving:
                text = "gave way to another kernel: no core image"
                return WatchEnd(text, boots_again=True, event=EventName.ORDERLY)
            cause = "the kernel vanished from memory"
            vm = VmAfterDeath.RESET_BY_GUEST
            return DumpCause(DeathKind.VANISHED, cause, now, vm)
        if self._nmi and now > self._nmi_at + _NMI_PATIENCE:
            cause, self._nmi = self._nmi, ""
            vm = VmAfterDeath.MAY_RUN
            return DumpCause(DeathKind.WATCHDOG, cause, now, vm)
        if kernel.oopsed and not self._oopsed and now >= self._oops_from:
            self._wait_for_log()  # It may become a panic.
            self._oopsed = True
            if not self.read_kernel().panicked:
                now = time.monotonic()
                return DumpCause(DeathKind.OOPS, "oops", now, VmAfterDeath.MAY_RUN)
            return None
        if self._settings.hang_after and now >= self._next_sample:
            hang = self._find_hang()
            self._next_sample = now + (_POLL if self._suspects else _SAMPLE_INTERVAL)
            if hang is not None:
                now = time.monotonic()
                vm = VmAfterDeath.MAY_RUN
                cause = f"frozen: {hang}"
                return DumpCause(DeathKind.HANG, cause, now, vm, hang.cpus)
        if now >= self._next_refresh or (kernel.booted and not self._booted):
            self._booted = self._booted or kernel.booted
            self._next_refresh = now + self._settings.interval
            self._refresh()
            if self._samples:
                self._reporter.report_samples(self._samples)
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

    def _log_head(self) -> bytes:
        try:
            return self._marks.liveness.log_head(self._memory)
        except NotCapturedError:
            return b""

    def _refresh(self, request: int | None = None) -> str | None:
        """
        Look at the kernel again.

        :param request: Number of the request for it, which the event answers.
        :return: Why that failed.
        """
        control = self._control
        if control.status() != "running":
            return "the VM does not run, or QEMU does not answer"  # Nothing changes.
        marks = self._marks
        started = time.monotonic()
        lacking, lost = marks.lacking, marks.answers.lost
        try:
            marks.refresh()
        except KmemdumpError as error:
            if isinstance(error, TargetError):
                control.note_error(error)
            if not self._refresh_failed:
                self._reporter.report_problem(
                    f"cannot refresh the marks: {first_line(error)}"
                )
            self._refresh_failed = True
            return first_line(error)
        self._refresh_failed = False
        if lacking is not None and marks.lacking is None:
            self._reporter.report("its variables and types were found after all")
        self._report_lost(lost)
        seconds = time.monotonic() - started
        self._reporter.report(
            f"{marks.info.osrelease}: {len(marks.registry)} regions, "
            f"{format_size(marks.size)}, refreshed at "
            f"{marks.capture.time:%H:%M:%S} UTC in {seconds:.2f} s",
            EventName.REFRESHED,
            release=marks.info.osrelease,
            regions=len(marks.registry),
            size=marks.size,
            seconds=round(seconds, 3),
            request=request,
        )
        return None

    def _obey(self, command: Command) -> None:
        """Do what the supervisor asks for."""
        if isinstance(command, RefreshCommand):
            problem = self._refresh(command.request)
        else:
            problem = self._capture(command)
        if problem is not None:
            self._reporter.report(problem, EventName.NO_CORE, request=command.request)

    def _capture(self, command: CaptureCommand) -> str | None:
        """Write a core image of the kernel as it runs; return why that failed."""
        problem = self._refresh()
        if problem is not None:
            return problem
        capture, registry = self._marks.capture, self._marks.registry
        try:
            missing = capture.save(
                command.path, regions=[*registry], packed=self._marks.packed
            )
            size = command.path.stat().st_size
        except (KmemdumpError, OSError) as error:
            return first_line(error)
        done = "rehearsed" if command.rehearsal else "captured"
        self._reporter.report(
            f"{done} on request: {command.path}, {format_size(size)}",
            EventName.CAPTURED,
            release=self._marks.info.osrelease,
            core=None if command.rehearsal else command.path,
            size=size,
            complete=capture.marking.complete and not missing,
            request=command.request,
        )
        return None

    def _report_lost(self, before: Mapping[tuple[str, str], str]) -> None:
        """Report which answers a refresh lost, or found again."""
        lost = self._marks.answers.lost
        new = {key: why for key, why in lost.items() if key not in before}
        if new:
            text = f"the marks lost answers: {describe_lost(new)}"
            self._reporter.report_problem(text)
        elif before and not lost:
            self._reporter.report("the marks have all their answers again")

    def _find_hang(self) -> Hang | None:
        """Take a sample, and return what is frozen."""
        progress, memory = self._marks.progress, self._memory
        if not progress.has_counters:
            return self._find_hang_without_counters()
        try:
            cpus, jiffies = progress.cpus(memory), progress.jiffies(memory)
        except NotCapturedError:
            return None
        stands_still = jiffies == self._jiffies or any(
            cpu in self._cpus and self._cpus[cpu].counters == item.counters
            for cpu, item in cpus.items()
        )
        self._cpus, self._jiffies = cpus, jiffies
        vcpus = self._read_vcpus() if stands_still else ()
        samples = {
            # QEMU numbers CPUs as Linux does.
            cpu: replace(item, vcpu=vcpus[cpu] if vcpus and cpu < len(vcpus) else None)
            for cpu, item in cpus.items()
        }
        self._samples += 1
        sample = Sample(time.monotonic(), vcpus is not None, jiffies, samples)
        return self._detector.add(sample)

    def _find_hang_without_counters(self) -> Hang | None:
        """Take a sample of the VM's CPUs, and return which ignore interrupts."""
        vcpus = self._read_vcpus()
        samples = {
            number: CpuSample(None, False, self._seen_waiting(vcpu))
            for number, vcpu in enumerate(vcpus or ())
        }
        self._suspects = any(item.ignores_interrupts for item in samples.values())
        self._samples += 1
        sample = Sample(time.monotonic(), vcpus is not None, None, samples)
        return self._detector.add(sample)

    def _seen_waiting(self, vcpu: Vcpu | None) -> Vcpu | None:
        """Note whether a CPU with interrupts off is at an instruction that waits."""
        if vcpu is None or vcpu.interrupts is not False or vcpu.pc is None:
            return vcpu
        waiting = self._marks.progress.is_waiting(self._memory, vcpu.pc)
        return replace(vcpu, waiting=waiting)

    def _read_vcpus(self) -> Sequence[Vcpu | None] | None:
        """Return the state of the VM's CPUs; None if the VM does not run."""
        control = self._control
        if not control.answers:
            return ()
        try:
            if control.target.status() != "running":
                return None
            return self._threads.read()
        except TargetError as error:
            control.note_error(error)
            return ()
