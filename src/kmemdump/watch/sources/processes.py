# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs without QMP: by the process of their monitor, or by its API socket."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from kmemdump.errors import TargetError, UsageError
from kmemdump.opening import parse_pid
from kmemdump.proc.process_stat import read_stat
from kmemdump.targets.api_target import CloudHypervisorTarget, FirecrackerTarget
from kmemdump.targets.process import ProcessTarget
from kmemdump.targets.qmp_client import socket_address
from kmemdump.targets.vm import VmTarget
from kmemdump.text import printable
from kmemdump.watch.sources.names import clean_name
from kmemdump.watch.sources.sockets import life_of_socket

__all__ = ["ApiVm", "ProcessSource", "ProcessVm", "is_process_spec"]

_APIS = {"ch": CloudHypervisorTarget, "firecracker": FirecrackerTarget}
_PID = "pid"


@dataclass(frozen=True, slots=True)
class ProcessVm:
    """The guest of a process."""

    name: str
    pid: int
    life: str
    """When the process was started, in clock ticks since the host's boot."""

    @property
    def spec(self) -> str:
        return f"{_PID}:{self.pid}"

    def with_name(self, name: str) -> ProcessVm:
        return replace(self, name=name)

    def obstacle(self) -> str | None:
        if _start_time(self.pid) != self.life:
            return f"process {self.pid} has ended"
        return None

    def connect(self, timeout: float) -> VmTarget:
        target = ProcessTarget(self.pid)
        # The id may belong to another process by now; the target's stays its own.
        if _start_time(self.pid) != self.life:
            target.close()
            raise TargetError(f"process {self.pid} has ended")
        return target


@dataclass(frozen=True, slots=True)
class ApiVm:
    """A VM whose monitor has an API socket."""

    name: str
    kind: str
    path: Path
    """Absolute."""
    life: str

    @property
    def spec(self) -> str:
        return f"{self.kind}:{self.path}"

    def with_name(self, name: str) -> ApiVm:
        return replace(self, name=name)

    def obstacle(self) -> str | None:
        path = printable(str(self.path))
        try:
            with (
                socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe,
                socket_address(self.path) as address,
            ):
                probe.setblocking(False)
                probe.connect(address)
        except BlockingIOError:
            return None  # Others are connected, which the API allows.
        except OSError as error:
            return f"{path}: cannot connect: {error.strerror}"
        return None

    def connect(self, timeout: float) -> VmTarget:
        return _APIS[self.kind](self.path, timeout)


class ProcessSource:
    """
    VMs that are named by a process, or by an API socket.

    :param specs: ``pid:PID``, ``ch:SOCKET``, ``firecracker:SOCKET``.
    :raises UsageError: If one of them is malformed, or names no process.
    """

    def __init__(self, specs: Sequence[str]) -> None:
        self._processes: list[ProcessVm] = []
        self._apis: list[ApiVm] = []
        for spec in dict.fromkeys(specs):
            kind, _, rest = spec.partition(":")
            if kind == _PID:
                self._processes.append(_find_process(parse_pid(rest)))
            else:
                path = Path(rest).absolute()
                self._apis.append(ApiVm(clean_name(path.stem), kind, path, ""))

    def vms(self) -> list[ProcessVm | ApiVm]:
        """Return the processes that have not ended, and all sockets."""
        apis = [replace(it, life=life_of_socket(it.path) or "") for it in self._apis]
        # An id that belongs to another process now is that of another VM.
        self._processes = [it for it in self._processes if it.obstacle() is None]
        return [*self._processes, *apis]

    @property
    def settled(self) -> bool:
        return True

    def messages(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


def is_process_spec(spec: str) -> bool:
    """Return whether a VM is named by its process, or by an API socket."""
    kind, colon, _ = spec.partition(":")
    return bool(colon) and (kind == _PID or kind in _APIS)


def _find_process(pid: int) -> ProcessVm:
    life = _start_time(pid)
    if life is None:
        raise UsageError(f"pid:{pid}: there is no such process")
    name = "vm"
    with suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return ProcessVm(clean_name(f"{name}-{pid}"), pid, life)


def _start_time(pid: int) -> str | None:
    """Return when a process was started; None if it has ended."""
    found = read_stat(f"/proc/{pid}/stat")
    return None if found is None or found.ended else str(found.started)
