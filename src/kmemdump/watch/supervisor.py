# SPDX-License-Identifier: GPL-2.0-or-later
"""
Watches all VMs that its sources find, each in a process of its own.

A VM that hangs, lies about its memory, or makes drgn crash, harms only the process
that watches it, which is started again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from multiprocessing.connection import wait
from pathlib import Path

from kmemdump.bounded import let_go
from kmemdump.bounds.attempts import End
from kmemdump.bounds.steps import Refusal
from kmemdump.errors import KmemdumpError
from kmemdump.folders import open_folder_of
from kmemdump.marking.selection import Selection
from kmemdump.watch.control.commands import make_command
from kmemdump.watch.control.pending import PendingRequests
from kmemdump.watch.control.server import ControlServer, Request
from kmemdump.watch.events import Event, EventName
from kmemdump.watch.program import Follower
from kmemdump.watch.settings import INTERVAL, Settings
from kmemdump.watch.sources import Source, VmAddress
from kmemdump.watch.vm_status import VmStatus
from kmemdump.watch.watcher import Outcome
from kmemdump.watch.worker import Usage, Worker, worker_context

__all__ = ["Supervisor"]

_SCAN = 0.5
"""Seconds from one look at the sources to the next."""
_END_PATIENCE = 20.0
"""Seconds that a worker has to end; it may be writing a core image."""
_PROGRAM_PATIENCE = 10.0
"""Seconds that programs have to end."""
_DELAYS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds until a worker is started again; the last one for all that follow."""
_STEP_PATIENCE = 1.0
"""Seconds that a worker has to end a step, if it does not write a core image."""
_MAX_REFUSED = 8
"""Steps that a worker leaves out; a look has about fifty."""
_FORGET = 6 * 3600.0
"""Seconds for which a step is left out."""
_MAX_PENDING = 16
"""Requests that a worker may have to answer at a time."""
_PAUSE = 600.0
"""Seconds from a worker that was ended to the next one, if there were many."""
_PROVEN = 30.0
"""A worker that ran so many seconds is started again at once."""


class _Vm:
    """A VM that a source has found."""

    def __init__(self, address: VmAddress, interval: float) -> None:
        self.address = address
        self.status = VmStatus(
            address.name, address.spec, datetime.now(UTC), interval=interval
        )
        self.worker: Worker | None = None
        self.outcome: Outcome | None = None
        """How the last watch ended, if its worker said so."""
        self.started = 0.0
        self.next_start = 0.0
        self.refused: dict[str, Refusal] = {}
        """Steps that ended workers, which others leave out for some hours."""
        self.held = False
        """Whether the last worker was ended while it had paused the VM for a moment."""
        self._failures = 0

    def schedule(self, now: float) -> None:
        """Note that its worker ended, and when the next one is to start."""
        if now - self.started > _PROVEN:
            self._failures = 0
        delay = _DELAYS[min(self._failures, len(_DELAYS) - 1)]
        # If the VM ended, its source has to notice, too.
        least = 0.0 if self.outcome is None else 2 * _SCAN
        self.next_start = now + max(delay, least)
        self._failures += 1

    def refuse(self, end: End, now: float) -> None:
        """Let the next worker leave out what ended this one."""
        if not end.killed:
            return
        if end.step and len(self.refused) < _MAX_REFUSED:
            reason = f"left out: the process that did it was ended ({end})"
            self.refused[end.step] = Refusal(reason, now + _FORGET)
        elif end.step:
            # A guest that wants to cost its host a CPU costs it a twentieth.
            self.next_start = max(self.next_start, now + _PAUSE)

    def forget(self, now: float) -> None:
        """Forget what was refused long ago: the host may have been busy."""
        self.refused = {what: it for what, it in self.refused.items() if it.until > now}

    def record(self) -> Mapping[str, object]:
        """Return what is known of it as JSON has it: see `control.status`."""
        usage = self.worker.usage() if self.worker else Usage(None, 0, 0.0)
        return {**self.status.record(), **asdict(usage)}


class Supervisor:
    """
    Starts and ends workers, and keeps what is known of each VM.

    Its methods must be called by the main thread.

    :param sources: Find the VMs.
    :param make_selection: Returns what to mark; must be picklable, because each worker
        calls it.
    :param report: Called with each event.
    :param tick: Called about twice a second while the supervisor works.
    :param followers: Do something for each death; closed in the end.
    :raises KmemdumpError: If core images cannot be written into the folder, or the
        control socket cannot be made.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        make_selection: Callable[[], Selection],
        settings: Settings,
        report: Callable[[Event], None],
        tick: Callable[[], None] = lambda: None,
        followers: Sequence[Follower] = (),
    ) -> None:
        self._sources = sources
        self._make_selection = make_selection
        self._settings = settings
        self._report = report
        self._tick = tick
        self._followers = followers
        self._context = worker_context()
        self._vms: dict[str, _Vm] = {}
        self._pending = PendingRequests()
        self._started = time.time()
        self._found_all = False
        """Whether the sources know by now which VMs there are."""
        _make_folder(settings.folder)

    def run(self) -> Mapping[str, Outcome]:
        """
        Watch until the watch is stopped.

        With :attr:`Settings.until_dead`, until each VM that is there now has died or
        ended. Before it raises (:exc:`KeyboardInterrupt`), core images that are being
        written are finished.

        :return: How each watch ended, by the VM's name.
        """
        server = None
        try:
            if self._settings.control is not None:
                server = ControlServer(self._settings.control)
            while not self._all_ended():
                self._find_vms()
                self._start_workers()
                self._receive(_SCAN, server)
                self._report_failures()
                self._tick()
        finally:
            self._end_workers()
            for follower in self._followers:
                with _signals_held():
                    follower.close(_PROGRAM_PATIENCE)
            self._report_failures()
            for source in self._sources:
                source.close()
            if server is not None:
                server.close()
        return {name: vm.outcome or Outcome() for name, vm in self._vms.items()}

    def status(self) -> list[VmStatus]:
        """Return what is known of each VM."""
        return [vm.status for vm in self._vms.values()]

    def _all_ended(self) -> bool:
        """Return whether the watch is to end when its VMs have, and they have."""
        return (
            self._settings.until_dead
            and self._found_all
            and all(
                vm.outcome and not vm.worker and not vm.held
                for vm in self._vms.values()
            )
        )

    def _find_vms(self) -> None:
        if self._settings.until_dead and self._found_all:
            return
        found: dict[str, VmAddress] = {}
        for source in self._sources:
            for address in source.vms():
                found.setdefault(address.name, address)
            for text in source.messages():
                self._report(Event(event=EventName.NOTE, vm="", text=text))
        for name in [*self._vms]:
            vm = self._vms[name]
            if name not in found and vm.worker is None:
                del self._vms[name]
                self._take(vm, Event(event=EventName.GONE, vm=name, text="is gone"))
        for name, address in found.items():
            known = self._vms.get(name)
            if known is None:
                interval = self._settings.interval or INTERVAL
                vm = self._vms[name] = _Vm(address, interval)
                text = f"found: {address.spec}"
                self._take(vm, Event(event=EventName.FOUND, vm=name, text=text))
            elif known.address != address and known.worker is None:
                known.address, known.next_start = address, 0.0
        settled = all(source.settled for source in self._sources)
        if settled and not self._found_all and not self._vms:
            text = "no VM is there yet; those that start are found"
            if not self._settings.until_dead:
                self._report(Event(event=EventName.NOTE, vm="", text=text))
        self._found_all = settled or self._found_all

    def _start_workers(self) -> None:
        now = time.monotonic()
        for vm in self._vms.values():
            ended = self._settings.until_dead and vm.outcome and not vm.held
            if vm.worker is None and now >= vm.next_start and not ended:
                vm.started = now
                obstacle = vm.address.obstacle()
                if obstacle is None:
                    obstacle = self._start_worker(vm)
                if obstacle is not None:
                    vm.schedule(now)
                    if self._settings.until_dead:
                        vm.outcome, vm.held = Outcome(problem=obstacle), False
                    self._problem(vm, obstacle)

    def _start_worker(self, vm: _Vm) -> str | None:
        """Start a worker; return why that is impossible."""
        try:
            vm.forget(time.monotonic())
            vm.worker = Worker(
                self._context,
                vm.address,
                self._make_selection,
                self._settings,
                vm.refused,
                vm.held,
            )
        except OSError as error:
            return f"cannot start a process: {error.strerror}"
        except EOFError:  # The host is short of memory; it is started again.
            return "cannot start a process: what starts it ended"
        return None

    def _receive(self, timeout: float, server: ControlServer | None = None) -> bool:
        """Take what workers and clients sent; return False if nothing came in time."""
        workers = {vm.worker.connection: vm for vm in self._vms.values() if vm.worker}
        control = [server.fileno()] if server is not None else []
        ready = wait([*workers, *control], timeout)
        for connection, vm in workers.items():
            if connection in ready:
                self._receive_of(vm)
        if server is not None and server.fileno() in ready:
            for request in server.take():
                self._handle(request)
        return bool(ready)

    def _receive_of(self, vm: _Vm) -> None:
        assert vm.worker is not None
        message = vm.worker.receive()
        if isinstance(message, Outcome):
            vm.outcome = message
            if message.problem:
                self._problem(vm, message.problem)
        elif message is not None:
            self._take(vm, message)
        else:
            end = vm.worker.close()
            vm.worker = None
            now = time.monotonic()
            vm.schedule(now)
            vm.refuse(end, now)
            vm.held = end.killed and bool(end.held)
            if vm.held:
                vm.next_start = now  # The next one lets it go.
            self._pending.refuse_all(vm.address.name, f"its worker ended ({end})")
            if vm.outcome is None:
                text = f"its process died ({end})"
                event = EventName.WORKER_DIED
                self._take(vm, Event(event=event, vm=vm.address.name, text=text))
                if self._settings.until_dead:
                    vm.outcome = Outcome(problem=text)
            elif not self._settings.until_dead:
                vm.outcome = None

    def _take(self, vm: _Vm, event: Event) -> None:
        vm.status.take(event)
        self._pending.answer(event)
        self._report(event)
        for follower in self._followers:
            follower.take(event)

    def _report_failures(self) -> None:
        """Report what followers could not do."""
        for follower in self._followers:
            for failure in follower.failures():
                event = EventName.PROBLEM
                self._report(Event(event=event, vm=failure.vm, text=failure.text))

    def _problem(self, vm: _Vm, text: str) -> None:
        """Report a problem, unless it is the same one as before."""
        if text != vm.status.error:
            event = Event(event=EventName.PROBLEM, vm=vm.address.name, text=text)
            self._take(vm, event)

    def _handle(self, request: Request) -> None:
        do, name = request.body.get("do"), request.body.get("vm")
        if do == "status":
            request.reply(
                version=2,
                pid=os.getpid(),
                started=self._started,
                folder=str(self._settings.folder.absolute()),
                vms=[vm.record() for vm in self._vms.values()],
            )
            return
        vm = self._vms.get(name) if isinstance(name, str) else None
        if vm is None:
            request.refuse(f"no VM {name!r} is watched")
        elif vm.worker is None:
            request.refuse(f"{name} has no worker now: {vm.status.error}")
        elif self._pending.count(vm.address.name) >= _MAX_PENDING:
            # One that does not read them would hold up this process in the end.
            request.refuse(f"{name} has {_MAX_PENDING} requests to answer already")
        else:
            number = self._pending.add(request, vm.address.name)
            command = make_command(request.body, number)
            if command is None:
                self._pending.refuse(number, f"cannot do {do!r}")
            else:
                vm.worker.send(command)

    def _end_workers(self) -> None:
        for vm in self._vms.values():
            if vm.worker is not None:
                vm.worker.terminate()
        started = time.monotonic()
        deadline = started + _END_PATIENCE
        steps = {
            name: vm.worker.page.serial for name, vm in self._vms.items() if vm.worker
        }
        with _signals_held():
            while any(vm.worker for vm in self._vms.values()):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._receive(min(left, _SCAN))
                if time.monotonic() > started + _STEP_PATIENCE:
                    self._kill_stuck(steps)
        for vm in self._vms.values():
            if vm.worker is not None:
                vm.worker.kill()
                vm.held = bool(vm.worker.close().held)
                vm.worker = None
            if vm.held:
                let_go(vm.address.spec)

    def _kill_stuck(self, steps: Mapping[str, int]) -> None:
        """Kill workers that are in the same step still, and write no core image."""
        for name, vm in self._vms.items():
            page = vm.worker.page if vm.worker is not None else None
            if page and page.step and page.serial == steps.get(name) and not page.holds:
                assert vm.worker is not None
                vm.worker.kill()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KmemdumpError(f"cannot make {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        why = os.strerror(errno.EROFS if read_only else errno.EACCES)
        raise KmemdumpError(f"cannot write into {folder}: {why}")
    # Not only when a kernel has died: a link of another user's is not followed.
    there, _ = open_folder_of(folder)
    os.close(there)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let no second Ctrl-C interrupt the end; SIGKILL still does."""
    held = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)
