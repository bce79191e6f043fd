# SPDX-License-Identifier: GPL-2.0-or-later
"""
A virtual machine monitor without QMP, of which only its process is known.

It answers the few commands that Linux can answer for it: whether it runs, its threads,
to stop and to go on.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Callable, Mapping

from kmemdump.errors import TargetError
from kmemdump.proc.process_stat import read_stat
from kmemdump.targets.process_pause import ProcessPause
from kmemdump.targets.qmp_channel import QmpChannel, QmpCommandError

__all__ = ["ProcessChannel"]

_MAX_THREADS = 1 << 16
# Names of the threads that run CPUs: "CPU 0/KVM" and "CPU 0/TCG" of QEMU, "fc_vcpu 0"
# of Firecracker and libkrun, "vcpu0" of Cloud Hypervisor, "crosvm_vcpu0".
_VCPU = re.compile(r"(?:CPU |(?:fc_|crosvm_)?vcpu ?)([0-9]{1,4})(?:/[A-Z]+)?")


class ProcessChannel(QmpChannel):
    """
    The process of a virtual machine monitor.

    :param pid: Of the process.
    :param folder: Its folder in /proc; stays the caller's.
    :raises TargetError: If it has ended.
    """

    def __init__(self, pid: int, folder: int) -> None:
        super().__init__(f"pid:{pid}")
        self.peer = pid
        self._folder = folder
        try:
            self._process = os.pidfd_open(pid)
        except OSError as error:
            raise TargetError(f"process {pid}: {error.strerror}") from error
        if read_stat("stat", folder=folder) is None:
            os.close(self._process)
            raise TargetError(f"process {pid}: it has ended")
        self._ended = select.poll()
        self._ended.register(self._process, select.POLLIN)
        self._pause = ProcessPause(pid, folder)
        self._commands: dict[str, Callable[[], object]] = {
            "query-status": self._status,
            "query-cpus-fast": self._threads,
            "stop": self._pause.stop,
            "cont": self._pause.cont,
        }

    @property
    def connected(self) -> bool:
        return self._process >= 0 and not self._ended.poll(0)

    def event(self, timeout: float = 0.0) -> Mapping[str, object] | None:
        """Wait for the end of the process, which has no events of its own."""
        event = super().event()
        if event is None and timeout > 0:
            if self._process >= 0:
                self._ended.poll(timeout * 1000)
            else:
                time.sleep(timeout)
        return event

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        timeout: float | None = None,
    ) -> object:
        if not self.connected:
            raise TargetError(f"{self.name}: {command}: the process has ended")
        run = self._commands.get(command)
        if run is None:
            raise QmpCommandError(
                f"{self.name}: {command}: a process without QMP cannot be asked for it"
            )
        return run()

    def send_fd(self, fd: int, name: str) -> None:
        raise QmpCommandError(f"{self.name}: takes no file descriptors")

    def close(self) -> None:
        if self._process >= 0:
            self._pause.close()
            os.close(self._process)
            self._process = -1

    def _status(self) -> object:
        found = read_stat("stat", folder=self._folder)
        stopped = self._pause.stopped or (found is not None and found.stopped)
        return {"status": "paused" if stopped else "running"}

    def _threads(self) -> object:
        found: dict[int, int] = {}
        for thread in map(int, self._list("task")):
            match = _VCPU.fullmatch(self._read(f"task/{thread}/comm").rstrip("\n"))
            if match:
                found.setdefault(int(match[1]), thread)
        return [{"cpu-index": it, "thread-id": found[it]} for it in sorted(found)]

    def _list(self, name: str) -> list[str]:
        try:
            folder = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        except OSError:
            return []
        try:
            return os.listdir(folder)[:_MAX_THREADS]
        except OSError:
            return []
        finally:
            os.close(folder)

    def _read(self, name: str) -> str:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        except OSError:
            return ""
        with open(fd, "rb") as file:
            try:
                return file.read(4096).decode("utf-8", "replace")
            except OSError:
                return ""
