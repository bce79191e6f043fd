# SPDX-License-Identifier: GPL-2.0-or-later
"""
Keep the state of machines that have booted, so that others go on from it.

An emulated boot takes 7 to 35 s, going on from a snapshot 0.3 s. A snapshot
holds files of the machine's own folder (RAM, console, device tree, disk) and QEMU's
migration stream: the devices, and RAM if it is not a file.
"""

import fcntl
import hashlib
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from kmemdump.errors import TargetError
from kmemdump.lab.machine import Machine
from kmemdump.lab.machine_folder import copy_sparse
from kmemdump.lab.packages import PackageCache
from kmemdump.lab.reserved import boot_smem
from kmemdump.lab.setup import Setup, qemu_arguments
from kmemdump.locked_folder import LockedFolder
from kmemdump.targets.qmp_client import QmpClient

__all__ = ["Snapshots", "restore", "save"]

_STREAM = "stream"
_IDENTITY = "identity"
_FILES = "files"
_KEPT = ("ram", "console", "device-tree", "disk")
_CAPABILITIES = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
"""RAM that is a shared file is not in the stream."""
_LIFE = 7 * 24 * 3600
"""
Seconds after which a machine is booted anew, so that tests meet other addresses, and
unused snapshots are removed.
"""
_TROUBLE = re.compile(r"detected stall|soft lockup|blocked for more than|WARNING:")
"""
What a kernel logs when the host is too busy: every machine of such a snapshot would
show it, and so it is not kept.
"""
_PATIENCE = 300
"""Seconds for a gigabyte on the disk of a busy host."""


def save(machine: Machine, folder: Path) -> None:
    """
    Write a snapshot of a running machine, which then goes on.

    :param folder: Must exist and be empty.
    :raises TargetError: If QEMU refuses.
    """
    control = machine.control
    stream = shlex.quote(str(folder.absolute() / _STREAM))
    control.execute("migrate-set-capabilities", _CAPABILITIES)
    control.execute("migrate", {"uri": f"exec:cat >{stream}"})
    deadline = time.monotonic() + _PATIENCE
    while (state := _migration_status(control)) != "completed":
        if state == "failed" or time.monotonic() > deadline:
            raise TargetError(f"qemu writes no snapshot: migration is {state}")
        time.sleep(0.01)
    (folder / _FILES).mkdir()
    for name in _KEPT:
        if (path := machine.folder / name).exists():
            copy_sparse(path, folder / _FILES / name)
    (folder / _IDENTITY).write_text(_identity(machine))
    machine.resume()


def _migration_status(control: QmpClient) -> object:
    answer = control.execute("query-migrate")
    return answer.get("status") if isinstance(answer, dict) else None


def restore(machine: Machine, folder: Path) -> None:
    """
    Start a machine that goes on from a snapshot.

    :raises TargetError: If the snapshot is of another kernel, setup or version of QEMU.
    """
    if (folder / _IDENTITY).read_text() != _identity(machine):
        raise TargetError(f"{folder}: the snapshot is of another machine")
    machine.start(folder / _FILES)
    control = machine.control
    stream = shlex.quote(str(folder.absolute() / _STREAM))
    control.execute("migrate-set-capabilities", _CAPABILITIES)
    control.execute("migrate-incoming", {"uri": f"exec:cat {stream}"})
    deadline = time.monotonic() + _PATIENCE
    while (state := control.status()) != "running":
        if time.monotonic() > deadline:
            raise TargetError(f"{folder}: qemu does not go on: it is {state}")
        time.sleep(0.01)


def _identity(machine: Machine) -> str:
    """Return all properties that a snapshot depends on, as lines."""
    setup = machine.setup
    lines = [_version(setup.architecture.qemu), setup.kernel.version]
    arguments = qemu_arguments(setup, Path("/"), guest=0, control=0)
    at = arguments.index("-action")  # What the host does at a death.
    lines += arguments[:at] + arguments[at + 2 :]
    lines.append(hashlib.sha256(machine.initramfs).hexdigest())
    if setup.firmware:
        lines.append(hashlib.sha256(boot_smem()).hexdigest())
    return "\n".join(lines) + "\n"


@cache
def _version(qemu: str) -> str:
    done = subprocess.run([qemu, "--version"], capture_output=True, text=True)
    return done.stdout.partition("\n")[0]


class Snapshots:
    """
    One snapshot of each machine, made on its first use.

    :param packages: What machines are made of.
    :param folder: Folder of snapshots, made if it does not exist. May be shared between
        processes.
    """

    def __init__(self, packages: PackageCache, folder: Path) -> None:
        self.folder = folder.absolute()
        self._packages = packages

    @contextmanager
    def machine(self, setup: Setup, *, timeout: float = 300) -> Iterator[Machine]:
        """
        Yield a machine that has booted, and is gone after the ``with`` statement.

        A machine with Python is not kept.

        :param timeout: Seconds that a boot may take.
        """
        machine = Machine(self._packages, setup, timeout=timeout)
        if setup.python is not None:  # Carries kmemdump, which each edit changes.
            with machine:
                yield machine
            return
        digest = hashlib.sha256(_identity(machine).encode()).hexdigest()[:12]
        folder = self.folder / f"{setup.kernel.release}-{digest}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_old()
        try:
            with _locked(folder):
                if folder.exists():
                    restore(machine, folder)
                else:
                    self._boot(machine, folder)
            yield machine
        finally:
            machine.close()

    def _boot(self, machine: Machine, folder: Path) -> None:
        machine.boot()
        if _TROUBLE.search(machine.console):
            return
        with LockedFolder(self.folder) as new:
            partial = new / folder.name
            partial.mkdir()
            save(machine, partial)
            partial.rename(folder)

    def _remove_old(self) -> None:
        for folder in self.folder.glob("[!.]*"):
            # The holder of the lock removes or uses it.
            with suppress(BlockingIOError, FileNotFoundError):
                if time.time() - folder.stat().st_mtime > _LIFE:
                    with _locked(folder, fcntl.LOCK_NB):
                        shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path, how: int = 0) -> Iterator[None]:
    with open(folder.with_name(f".{folder.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | how)
        yield
