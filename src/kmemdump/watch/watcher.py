# SPDX-License-Identifier: GPL-2.0-or-later
"""One VM: wait for its kernel, mark it, and be there when it dies."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.errors import KmemdumpError
from kmemdump.marking.selection import Selection
from kmemdump.targets.qmp import QmpTarget
from kmemdump.targets.qmp_client import QmpTimeoutError
from kmemdump.watch.boot import Arrival
from kmemdump.watch.dump import Burial, Next
from kmemdump.watch.end_causes import Death
from kmemdump.watch.monitor import Vigil
from kmemdump.watch.reporter import StoppedError, Voice, first_line
from kmemdump.watch.settings import Settings
from kmemdump.watch.vcpus import VcpuThreads
from kmemdump.watch.vm_control import Host
from kmemdump.watch.vm_marks import Keeper
from kmemdump.watch.vm_state import Life

__all__ = ["Outcome", "Watcher"]

_QMP_TIMEOUT = 5.0
_CONNECT_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How watching a VM ended."""

    cores: tuple[Path, ...] = ()
    problem: str | None = None
    """What is missing."""
    watched: bool = False
    """Whether there was a kernel that could be marked."""


class Watcher:
    """
    Watches one VM.

    :param name: Of the VM: the first part of the names of its core images.
    :param socket: Its QMP socket.
    :param selection: What to mark.
    """

    def __init__(
        self,
        name: str,
        socket: Path,
        selection: Selection,
        settings: Settings,
        voice: Voice,
    ) -> None:
        self._name = name
        self._socket = socket
        self._selection = selection
        self._settings = settings
        self._voice = voice
        self._cores: list[Path] = []
        self._watched = False

    def run(self) -> Outcome:
        """Watch until the VM ends, its kernel has died, or somebody stops it."""
        problems = self._voice.problems
        try:
            target = self._connect()
            try:
                self._watch(Host(target, self._voice))
            finally:
                target.close()
        except StoppedError:
            pass
        except KmemdumpError as error:
            problems.append(str(error))
        return Outcome(tuple(self._cores), "; ".join(problems) or None, self._watched)

    def _connect(self) -> QmpTarget:
        deadline = time.monotonic() + _CONNECT_PATIENCE
        told = False
        while True:
            self._voice.show("connecting")
            try:
                return QmpTarget(self._socket, _QMP_TIMEOUT)
            except QmpTimeoutError as error:
                # QEMU may be busy with another client, which may end.
                self._voice.check_stopping()
                if time.monotonic() > deadline:
                    raise
                if not told:
                    self._voice.say(f"{first_line(error)}; trying again")
                told = True
            self._voice.sleep(1.0)

    def _watch(self, host: Host) -> None:
        arrival = Arrival(host, self._selection, self._voice)
        burial = Burial(self._name, host, self._settings, self._cores, self._voice)
        before: Keeper | None = None
        while (keeper := arrival.wait(before)) is not None:
            self._watched = True
            if not self._watch_kernel(host, keeper, burial):
                return
            before = keeper

    def _watch_kernel(self, host: Host, keeper: Keeper, burial: Burial) -> bool:
        """Watch one kernel; return whether the VM boots another one."""
        settings = self._settings
        threads = VcpuThreads(host.target.client, arch_from_elf(host.target.machine))
        memory = host.target.memory
        life = Life(keeper, memory, threads, settings.hang_after, settings.interval)
        if life.signs().leaving and host.status() == "shutdown":
            self._voice.say("has shut down in an orderly way already: no core image")
            return False
        vigil = Vigil(host, life, settings, self._voice)
        while True:
            end = vigil.keep()
            if isinstance(end, Death):
                match burial.bury(keeper, end):
                    case Next.END:
                        return False
                    case Next.ATTACH:
                        return True
                    case Next.WATCH:
                        continue
                    case Next.WAIT:
                        end = burial.outlive()
            self._voice.say(end.text)
            return end.again
