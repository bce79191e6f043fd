# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a VM's CPUs, as QEMU and the host show it."""

from __future__ import annotations

import os
import re
from dataclasses import replace

from kmemdump.arch.architecture import Arch
from kmemdump.errors import TargetError
from kmemdump.proc.process_stat import read_stat
from kmemdump.targets.qmp_channel import QmpChannel, QmpCommandError
from kmemdump.watch.hang_detector import Vcpu

__all__ = ["VcpuThreads", "parse_vcpus"]

MAX_CPUS = 4096
_MAX_TEXT = 1 << 16
"""Characters for a CPU; QEMU prints up to 6,000."""


def parse_vcpus(text: str, arch: Arch) -> list[Vcpu | None]:
    """
    Parse what QEMU's ``info registers -a`` prints.

    :param arch: The VM's.
    :return: None for a CPU whose state is not in a known form.
    """
    parts = re.split(r"^CPU#\d+\s*$", text, flags=re.M)[1:]
    return [_parse_vcpu(part[:_MAX_TEXT], arch) for part in parts[:MAX_CPUS]]


def _parse_vcpu(text: str, arch: Arch) -> Vcpu | None:
    match = arch.cpu_state.search(text)
    if match is None:
        return None
    found = match.groupdict()
    halted = found["halted"] == "1" if "halted" in found else None
    interrupts = arch.interrupts_enabled({arch.flags: int(found["flags"], 16)})
    user = found["user"] is not None
    return Vcpu(halted, user, int(found["pc"], 16), interrupts=interrupts)


class VcpuThreads:
    """
    The threads on this host that run a VM's CPUs, as far as they are visible.

    :param client: Connection to QEMU.
    :param arch: The VM's.
    """

    def __init__(self, client: QmpChannel, arch: Arch) -> None:
        self._client = client
        self._arch = arch
        self._threads: dict[int, int] = {}
        try:
            answer = client.execute("query-cpus-fast")
        except TargetError:
            return  # QEMU is gone, which the monitor will notice.
        for item in answer[:MAX_CPUS] if isinstance(answer, list) else []:
            if not isinstance(item, dict):
                continue
            index, thread = item.get("cpu-index"), item.get("thread-id")
            if not (isinstance(index, int) and isinstance(thread, int)):
                continue
            if 0 <= index < MAX_CPUS:
                self._threads[index] = thread

    def read(self) -> list[Vcpu | None]:
        """
        Return the state of each CPU.

        :raises TargetError: If QEMU does not answer.
        """
        try:
            text = self._client.command_line("info registers -a")
        except QmpCommandError:
            return self._read_threads()
        vcpus = parse_vcpus(text, self._arch)
        return [
            replace(vcpu, cpu_time=self._cpu_time(index)) if vcpu else None
            for index, vcpu in enumerate(vcpus)
        ]

    def _read_threads(self) -> list[Vcpu | None]:
        """Return what is known of CPUs without QMP: the time that they were given."""
        if self._threads:
            count = max(self._threads) + 1
            times = [self._cpu_time(index) for index in range(count)]
            return [Vcpu(None, None, None, seconds) for seconds in times]
        # Without names, the time of the whole process is theirs.
        found = read_stat(f"/proc/{self._client.peer}/stat")
        first = Vcpu(None, None, None, found.cpu_seconds if found else None)
        return [first, *[Vcpu(None, None, None, 0.0)] * (MAX_CPUS - 1)]

    def _cpu_time(self, index: int) -> float | None:
        thread = self._threads.get(index)
        # Of the thread alone: /proc/THREAD/stat is of its whole process.
        found = read_stat(f"/proc/{thread}/task/{thread}/stat") if thread else None
        if found is None:
            return None
        # A QEMU in a container may report thread ids that belong to others here.
        own = os.path.exists(f"/proc/{self._client.peer}/task/{thread}")
        if not own and not found.name.startswith((b"qemu", b"CPU ", b"ALL CPUs")):
            return None
        return found.cpu_seconds
