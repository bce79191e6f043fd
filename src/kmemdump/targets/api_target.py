# SPDX-License-Identifier: GPL-2.0-or-later
"""
A VM of Cloud Hypervisor or Firecracker: by its process, and its API socket.

The API pauses and resumes, and tells the state. It gives registers in snapshots only,
which hold all memory, too. So a snapshot is asked for whose memory has no place: both
monitors write the state first, and then report that the memory cannot be written.
"""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

from kmemdump.arch.architecture import arch_from_elf, pack_prstatus
from kmemdump.errors import FormatError, TargetError
from kmemdump.formats import cloud_hypervisor_state, firecracker_state
from kmemdump.formats.kvm_state import KvmCpu
from kmemdump.targets.api_socket import ApiSocket
from kmemdump.targets.exchange_folder import ExchangeFolder, exchange_folder
from kmemdump.targets.process import ProcessTarget
from kmemdump.targets.process_channel import ProcessChannel
from kmemdump.targets.qmp_channel import QmpCommandError
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["CloudHypervisorTarget", "FirecrackerTarget"]

_logger = logging.getLogger(__name__)
_TIMEOUT = 10.0
_SNAPSHOT_TIMEOUT = 30.0
_RESET = {
    "event": "RESET",
    "data": {"guest": False, "reason": "host-qmp-system-reset"},
}


class _ApiChannel(ProcessChannel):
    """A monitor with an API; a command that the API lacks is refused."""

    def __init__(self, api: ApiSocket, pid: int, folder: int) -> None:
        super().__init__(pid, folder)
        self.name = api.name
        self.api = api
        self._commands |= {
            "query-status": lambda: {"status": self._find_status()},
            "stop": self._stop,
            "cont": self._cont,
        }

    def _member(self, path: str, name: str) -> object:
        answer = self.api.request("GET", path)
        return answer.get(name) if isinstance(answer, dict) else None

    @abstractmethod
    def _find_status(self) -> str:
        """Return the state as QEMU names it."""

    @abstractmethod
    def _stop(self) -> None:
        """Pause the VM."""

    @abstractmethod
    def _cont(self) -> None:
        """Let the VM run."""

    @abstractmethod
    def read_cpus(self, folder: ExchangeFolder) -> list[KvmCpu]:
        """
        Return the registers of the CPUs of a paused VM.

        :raises TargetError: If the monitor does not give them.
        """


class _CloudHypervisor(_ApiChannel):
    # vmm/src/api/openapi/cloud-hypervisor.yaml of Cloud Hypervisor.
    _STATES: Mapping[str, str] = {
        "Created": "prelaunch",
        "Running": "running",
        "Paused": "paused",
        "Shutdown": "shutdown",
        "BreakPoint": "debug",
    }

    def __init__(self, api: ApiSocket, pid: int, folder: int) -> None:
        super().__init__(api, pid, folder)
        self._commands |= {
            "quit": lambda: self._put("vmm.shutdown"),
            "system_reset": self._reset,
            "inject-nmi": lambda: self._put("vm.nmi"),
        }

    def _put(self, what: str) -> None:
        self.api.request("PUT", f"/api/v1/{what}")

    def _find_status(self) -> str:
        state = self._member("/api/v1/vm.info", "state")
        return self._STATES.get(str(state), "unknown")

    def _stop(self) -> None:
        self._put("vm.pause")

    def _cont(self) -> None:
        self._put("vm.resume")

    def _reset(self) -> None:
        self._put("vm.reboot")
        self._keep_event(_RESET)

    def read_cpus(self, folder: ExchangeFolder) -> list[KvmCpu]:
        # Vm::send() in vmm/src/vm.rs: the configuration, the state, the memory; each
        # must be a new file.
        os.mkdir("memory-ranges", dir_fd=folder.fd)
        place = {"destination_url": f"file://{folder.path}"}
        problem = _refusal(self.api, "/api/v1/vm.snapshot", place)
        return cloud_hypervisor_state.parse_state(
            _read(folder, "state.json", problem), f"{self.name}: state.json"
        )


class _Firecracker(_ApiChannel):
    # src/firecracker/swagger/firecracker.yaml of Firecracker.
    _STATES: Mapping[str, str] = {
        "Not started": "prelaunch",
        "Running": "running",
        "Paused": "paused",
    }

    def _find_status(self) -> str:
        return self._STATES.get(str(self._member("/", "state")), "unknown")

    def _stop(self) -> None:
        self.api.request("PATCH", "/vm", {"state": "Paused"})

    def _cont(self) -> None:
        self.api.request("PATCH", "/vm", {"state": "Resumed"})

    def read_cpus(self, folder: ExchangeFolder) -> list[KvmCpu]:
        # create_snapshot() in src/vmm/src/persist.rs: the state, then the memory. A
        # folder cannot be written as a file.
        place = {
            "snapshot_type": "Full",
            "snapshot_path": f"{folder.path}/state",
            "mem_file_path": folder.path,
        }
        problem = _refusal(self.api, "/snapshot/create", place)
        return firecracker_state.parse_state(
            _read(folder, "state", problem), f"{self.name}: snapshot"
        )


def _refusal(api: ApiSocket, path: str, place: Mapping[str, object]) -> str:
    """Ask for a snapshot that cannot be completed; return what the monitor says."""
    try:
        api.request("PUT", path, place, _SNAPSHOT_TIMEOUT)
    except QmpCommandError as error:
        return str(error)
    return "it made a whole snapshot"


def _read(folder: ExchangeFolder, name: str, problem: str) -> bytes:
    try:
        return folder.read(name)
    except TargetError as error:
        raise TargetError(f"{error}; {problem}") from error


class _ApiTarget(ProcessTarget):
    """
    A VM.

    :param socket: API socket of its monitor.
    :param timeout: Seconds that the monitor has for each answer.
    :param vmcoreinfo: To be used instead of the guest's own.
    :raises TargetError: If nobody answers there, or the RAM cannot be read.
    """

    kind: str
    channel: type[_ApiChannel]

    def __init__(
        self,
        socket: Path,
        timeout: float = _TIMEOUT,
        *,
        vmcoreinfo: VmcoreInfo | None = None,
    ) -> None:
        self._api = ApiSocket(socket, timeout)
        if self._api.peer <= 0:
            raise TargetError(
                f"{socket}: its process is in another PID namespace\n"
                "give the process as it is seen here: pid:PID"
            )
        super().__init__(self._api.peer, vmcoreinfo=vmcoreinfo)
        self.name = f"{self.kind}:{socket}"

    def _connect(self) -> ProcessChannel:
        return self.channel(self._api, self.pid, self.folder)

    def stop(self) -> None:
        """Pause the VM."""
        self.client.pause(self.name)

    def cont(self) -> None:
        """Let the VM run."""
        self.client.resume()

    def registers(self) -> list[bytes]:
        """
        Return ``struct elf_prstatus`` of each CPU of a paused VM.

        :return: Empty if the VM runs, or its monitor does not give them.
        """
        channel = self.client
        assert isinstance(channel, _ApiChannel)
        if self.status() != "paused":
            return []
        try:
            with exchange_folder(self.pid, self.folder) as folder:
                cpus = channel.read_cpus(folder)
        except (TargetError, FormatError, OSError) as error:
            _logger.warning("%s: no registers: %s", self.name, error)
            return []
        arch = arch_from_elf(self.machine)
        return [
            pack_prstatus(arch, number, cpu.registers)
            for number, cpu in enumerate(cpus, 1)
        ]


class CloudHypervisorTarget(_ApiTarget):
    """A VM of Cloud Hypervisor, by its API socket."""

    kind = "ch"
    abilities = frozenset(("pause", "reset", "quit"))
    channel = _CloudHypervisor


class FirecrackerTarget(_ApiTarget):
    """A VM of Firecracker, by its API socket."""

    kind = "firecracker"
    abilities = frozenset(("pause",))
    channel = _Firecracker
