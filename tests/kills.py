# SPDX-License-Identifier: GPL-2.0-or-later
"""
Workers, the supervisor, QEMU and libvirtd are killed at random under one watch.

A program: ``make kills``. Who starts the supervisor and libvirtd again does it at once;
whoever starts a VM again, too. Then it measures how long it takes until each VM is
watched that is there. It ends with status 1 if one is not, and prints a table.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from kmemdump.errors import KmemdumpError, TargetError
from kmemdump.lab import X86_64, PackageCache, Setup, build_module, default_folder
from kmemdump.watch.control.client import control_path
from kmemdump.watch.control.status import VmRecord, read_watch
from rigs.folder_watch import FolderWatch
from rigs.libvirtd import Domain, Libvirtd, wait_for
from rigs.snapshots import Snapshots

_KERNELS = ("6.12", "newest", "6.1")
_DOMAINS = 2
_STARTS = 5
_PATIENCE = 120.0
"""Seconds until a VM that is not watched is a failure."""
_BOUND = 5.0
"""Seconds; the table says how often it took longer."""


class Scene:
    """VMs, their watch, and what can be killed."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        packages = PackageCache(default_folder(os.environ))
        self._snapshots = Snapshots(packages, packages.folder / "snapshots")
        self._stack = stack
        self._machines: dict[str, ExitStack] = {}
        self._pids: dict[str, int] = {}
        self._setups: dict[str, Setup] = {}
        (folder / "v").mkdir()
        self.daemon = stack.enter_context(Libvirtd(folder / "v", packages))
        self.watch = FolderWatch(
            folder,
            dict(os.environ),
            [f"--libvirt={self.daemon.uri}", "--keep", "3"],
        )
        for kernel in _KERNELS:
            package = packages.kernel(kernel, X86_64)
            module = build_module(packages, package)
            setup = Setup(package, cpus=1, memory=256, tasks=20, module=module)
            self._setups[f"vm-{kernel}"] = setup
            self.start_machine(f"vm-{kernel}")
        small = Setup(
            packages.kernel("6.1", X86_64), memory=512, tasks=20, vmcoreinfo=False
        )
        self.domains = {
            name: Domain(self.daemon, name, small)
            for name in (f"domain-{number}" for number in range(_DOMAINS))
        }
        for domain in self.domains.values():
            domain.start()

    @property
    def vms(self) -> set[str]:
        return {*self._setups, *self.domains}

    def start_machine(self, name: str) -> None:
        life = self._stack.enter_context(ExitStack())
        machine = life.enter_context(self._snapshots.machine(self._setups[name]))
        self._machines[name] = life
        self._pids[name] = machine.pid
        self.watch.add(name, machine)

    def watched(self) -> Mapping[str, VmRecord]:
        """Return those that are watched now."""
        try:
            control = control_path(self.watch.folder, self.watch.process.pid)
            status = read_watch(control)
        except KmemdumpError:
            return {}  # It is starting.
        return {
            vm.vm: vm
            for vm in status.vms
            if vm.state == "watched" and vm.pid and os.path.exists(f"/proc/{vm.pid}")
        }

    def kill_worker(self) -> Callable[[], bool]:
        name, record = random.choice([*self.watched().items()])
        assert record.pid is not None
        os.kill(record.pid, signal.SIGKILL)

        def again() -> bool:
            now = self.watched().get(name)
            return now is not None and now.pid != record.pid

        return again

    def kill_supervisor(self) -> Callable[[], bool]:
        self.watch.kill()
        self.watch.start()
        return lambda: True

    def kill_qemu(self) -> Callable[[], bool]:
        name = random.choice([*self.vms])
        before = self.watched()[name].pid
        if name in self.domains:
            self.domains[name].kill()
            self._start(self.domains[name])
        else:
            os.kill(self._pids[name], signal.SIGKILL)
            self._machines[name].close()
            self.start_machine(name)

        def again() -> bool:
            now = self.watched().get(name)
            return now is not None and now.pid != before

        return again

    def _start(self, domain: Domain) -> None:
        """Start a domain; its QEMU 7.2 dies in the boot now and then (SIGSEGV)."""
        for _ in range(_STARTS):
            with suppress(TargetError):
                return domain.start()
            print(f"{domain.name}: QEMU died in the boot; starting it again")
            wait_for(lambda: domain.state == "shut off")
            domain.forget_port()
        raise TimeoutError(f"{domain.name}: does not start")

    def kill_libvirtd(self) -> Callable[[], bool]:
        self.daemon.kill()
        self.daemon.start()
        return lambda: True

    def wait(self, again: Callable[[], bool]) -> float:
        """Wait until all VMs are watched; return the seconds that it took."""
        begin = time.monotonic()
        while not again() or self.watched().keys() != self.vms:
            if time.monotonic() - begin > _PATIENCE:
                missing = ", ".join(self.vms - self.watched().keys())
                raise TimeoutError(f"not watched after {_PATIENCE} s: {missing}")
            time.sleep(0.05)
        return time.monotonic() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    random.seed(given.seed)
    folder = Path(tempfile.mkdtemp(prefix="kmemdump-kills-"))
    took: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        scene = Scene(folder, stack)
        scene.wait(lambda: True)
        victims = {
            "worker": scene.kill_worker,
            "supervisor": scene.kill_supervisor,
            "QEMU": scene.kill_qemu,
            "libvirtd": scene.kill_libvirtd,
        }
        for _ in range(given.kills):
            time.sleep(random.uniform(0, 1))
            name = random.choice([*victims])
            seconds = scene.wait(victims[name]())
            print(f"{name}: {seconds:.2f} s", flush=True)
            took[name].append(seconds)
        status = scene.watch.end()
    print("killed      times  median s  longest s  over 5 s")
    for name, seconds in took.items():
        median = sorted(seconds)[len(seconds) // 2]
        over = sum(it > _BOUND for it in seconds)
        print(
            f"{name:10}  {len(seconds):5}  {median:8.1f}  {max(seconds):9.1f}  {over:8}"
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
