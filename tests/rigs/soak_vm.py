# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that lives and dies at random under a watch, and what the watch must say."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from kmemdump.errors import KmemdumpError
from kmemdump.lab import CrashType, Machine, Setup
from kmemdump.lab.crashes import trigger_crash
from rigs.folder_watch import Event, FolderWatch
from rigs.snapshots import Snapshots

__all__ = ["ACTIONS", "SoakError", "SoakVm"]

PATIENCE = 240
"""Seconds; twenty machines share the host."""


class SoakError(AssertionError):
    """The watch did not say what it must, or said what it must not."""


class SoakVm(threading.Thread):
    """
    Starts a machine, does things to it, and compares the watch's events.

    :param ending: Set when all should end.
    """

    def __init__(
        self,
        name: str,
        watch: FolderWatch,
        snapshots: Snapshots,
        setup: Setup,
        ending: threading.Event,
    ) -> None:
        super().__init__(name=name)
        self._watch = watch
        self._snapshots = snapshots
        self._setup = setup
        self._ending = ending
        self._random = random.Random(name)
        self._seen = 0
        self.done: list[str] = []
        """The actions that ended as they must."""
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                with ExitStack() as life:
                    self._live(life)
                self._watch.remove(self.name)
        except BaseException as error:
            self.problem = error
            self._ending.set()

    def _live(self, life: ExitStack) -> None:
        machine = life.enter_context(self._snapshots.machine(self._setup))
        self._watch.add(self.name, machine)
        self.expect("marked")
        while not self._ending.is_set():
            self._rest(self._random.uniform(0, 10))
            names = [*ACTIONS]
            weights = [ACTIONS[name][1] for name in names]
            (name,) = self._random.choices(names, weights)
            try:
                goes_on = ACTIONS[name][0](self, machine)
            except KmemdumpError as error:
                raise SoakError(f"{self.name}: {name}: {error}") from error
            self.done.append(name)
            if not goes_on:
                return

    def expect(self, event: str, kind: str | None = None) -> None:
        """Wait for an event; of those that matter, no other may come before."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for found in self._news():
                if found["event"] == event and kind in (None, found.get("kind")):
                    return
                self._refuse(found)
            time.sleep(0.1)
        raise SoakError(f"{self.name}: no {event} {kind or ''} in {PATIENCE} s")

    def expect_nothing(self, seconds: float) -> None:
        """Check that nothing that matters happens."""
        self._rest(seconds)
        for found in self._news():
            self._refuse(found)

    def _news(self) -> Iterator[Event]:
        for event in self._watch.events(self.name)[self._seen :]:
            self._seen += 1
            yield event

    def _refuse(self, event: Event) -> None:
        if event["event"] in ("death", "no-core", "orderly", "worker-died"):
            raise SoakError(f"{self.name}: unexpected: {event}")

    def _rest(self, seconds: float) -> None:
        self._ending.wait(seconds)

    def kill_worker(self) -> None:
        """Kill the process that watches the VM."""
        pid = self._watch.worker(self.name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            self.expect("worker-died")
            self.expect("marked")


def _die(crash: CrashType, kind: str) -> Callable[[SoakVm, Machine], bool]:
    def act(vm: SoakVm, machine: Machine) -> bool:
        trigger_crash(machine, crash)
        vm.expect("death", kind)
        return False

    return act


def _oops(vm: SoakVm, machine: Machine) -> bool:
    machine.run("sh -c 'echo null >/sys/module/kmemdump_lab/parameters/die' &")
    vm.expect("death", "oops")
    return _kill_qemu(vm, machine)  # What an oops leaves is not as it was.


def _kill_qemu(vm: SoakVm, machine: Machine) -> bool:
    os.kill(machine.pid, signal.SIGKILL)
    vm.expect("death", "qemu-ended")
    return False


def _power_off(vm: SoakVm, machine: Machine) -> bool:
    machine.send("busybox poweroff -f")
    vm.expect("orderly")
    return False


def _reboot(vm: SoakVm, machine: Machine) -> bool:
    machine.send("busybox reboot -f")
    vm.expect("orderly")
    machine.wait_ready()
    vm.expect("marked")
    return True


def _pause(vm: SoakVm, machine: Machine) -> bool:
    machine.pause()
    vm.expect_nothing(15)
    machine.resume()
    vm.expect_nothing(5)
    return True


def _stop_qemu(vm: SoakVm, machine: Machine) -> bool:
    os.kill(machine.pid, signal.SIGSTOP)
    vm.expect_nothing(12)
    os.kill(machine.pid, signal.SIGCONT)
    vm.expect_nothing(5)
    return True


def _flood(vm: SoakVm, machine: Machine) -> bool:
    machine.run("busybox seq 1 20000 >/dev/kmsg", timeout=PATIENCE)
    vm.expect_nothing(3)
    return True


def _starve(vm: SoakVm, machine: Machine) -> bool:
    """Let a task take all memory, so that the kernel kills it."""
    machine.run("sh -c 'busybox tail /dev/zero' || true", timeout=PATIENCE)
    vm.expect_nothing(3)
    return True


def _burn(vm: SoakVm, machine: Machine) -> bool:
    machine.run("busybox timeout 12 sh -c 'while :; do :; done' &")
    vm.expect_nothing(15)
    return True


def _kill_worker(vm: SoakVm, machine: Machine) -> bool:
    vm.kill_worker()
    return True


ACTIONS: dict[str, tuple[Callable[[SoakVm, Machine], bool], int]] = {
    "panic": (_die(CrashType.PANIC, "panic"), 6),
    "null": (_die(CrashType.NULL, "panic"), 6),
    "hang": (_die(CrashType.SPIN, "hang"), 4),
    "oops": (_oops, 4),
    "kill QEMU": (_kill_qemu, 3),
    "power off": (_power_off, 2),
    "reboot": (_reboot, 1),
    "pause": (_pause, 2),
    "stop QEMU": (_stop_qemu, 2),
    "flood the log": (_flood, 2),
    "starve of memory": (_starve, 2),
    "burn": (_burn, 2),
    "kill the worker": (_kill_worker, 3),
}
"""What is done to a VM, and how often; returns whether the machine goes on."""
