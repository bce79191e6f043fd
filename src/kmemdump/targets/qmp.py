# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU VM through its monitor, whether it runs, is paused or has crashed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from kmemdump.arch.architecture import arch_from_elf, arch_from_name
from kmemdump.errors import FormatError, TargetError, UnsupportedError
from kmemdump.formats.elf import ElfCore, Note, parse_core
from kmemdump.kernel_search.completion import complete
from kmemdump.kernel_search.finder import find_by_contents, find_kernel
from kmemdump.memory.changing import ChangingMemory
from kmemdump.targets import Closing
from kmemdump.targets.file import noted_vmcoreinfo, prstatus
from kmemdump.targets.qmp_channel import QmpChannel, QmpCommandError
from kmemdump.targets.qmp_client import DEFAULT_TIMEOUT, QmpClient
from kmemdump.targets.qmp_memory import VmRam
from kmemdump.targets.qmp_registers import belongs_to_libvirt, parse_registers
from kmemdump.targets.vm import paused
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["QmpTarget"]

_PAGE = 4096
_MAX_DUMP = 64 << 20
_PAUSE = 5.0
"""Least seconds between two searches by contents, while a VM boots."""
_REST = 4.0
"""The same in units of the time that the last search took."""


class QmpTarget(Closing):
    """
    A VM.

    :param place: Its QMP socket, or a connection to its monitor, which is closed with
        this.
    :param timeout: Seconds that QEMU has for each answer, through a socket.
    :param vmcoreinfo: To be used instead of the guest's own.
    :raises TargetError: If it does not answer, or its RAM cannot be read.
    :raises UnsupportedError: If its architecture is not supported.
    """

    abilities = frozenset(("events", "pause", "reset", "quit"))

    def __init__(
        self,
        place: Path | QmpChannel,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        vmcoreinfo: VmcoreInfo | None = None,
    ) -> None:
        self.client: QmpChannel
        if isinstance(place, QmpChannel):
            self.name, self.client = place.name, place
        else:
            self.name, self.client = f"qmp:{place}", QmpClient(place, timeout)
        try:
            self.machine = self._machine()
            self._ram = VmRam(self.client)
            self._libvirt = belongs_to_libvirt(self.client)
        except BaseException:
            self.client.close()
            raise
        self.memory: ChangingMemory = self._ram.memory
        self._given = vmcoreinfo
        self._vmcoreinfo: VmcoreInfo | None = None
        self._next_search = 0.0

    def _machine(self) -> int:
        answer = self.client.execute("query-target")
        arch = answer.get("arch") if isinstance(answer, dict) else None
        try:
            return arch_from_name(str(arch)).machine
        except UnsupportedError as error:
            raise UnsupportedError(f"{self.name}: a VM of {error}") from None

    def vmcoreinfo(self) -> VmcoreInfo:
        """
        Return the VMCOREINFO of the guest's kernel, completed.

        From QEMU, if the guest left it there (``-device vmcoreinfo`` and the guest's
        module qemu_fw_cfg), else found in RAM. Kept for later calls.

        :raises TargetError: If there is none.
        """
        if self._vmcoreinfo is None and self._given is not None:
            self._vmcoreinfo = complete(self._given, self.memory)
        if self._vmcoreinfo is None:
            self._vmcoreinfo = self._find_vmcoreinfo()
        return self._vmcoreinfo

    def forget(self) -> None:
        """Forget the kernel, since the VM may boot another one."""
        self._vmcoreinfo = None

    def _find_vmcoreinfo(self) -> VmcoreInfo:
        try:
            notes = self._notes()
        except (FormatError, TargetError):
            notes = []  # RAM may have what the dump lacks.
        found = find_kernel(
            self.memory,
            self.name,
            notes,
            noted_vmcoreinfo(notes, self.name),
            lambda: self._search(notes),
        )
        if found is None:
            raise TargetError(
                f"{self.name}: no VMCOREINFO in the VM's memory, and no kernel found "
                "by its contents, expected a Linux kernel that has booted"
            )
        return found

    def _search(self, notes: Sequence[Note]) -> VmcoreInfo | None:
        """Search by contents, but not again and again while the VM boots."""
        started = time.monotonic()
        if started < self._next_search:
            return None
        # A kernel that boots will write its note, or be found later.
        runs: Callable[[], bool] = lambda: self.status() == "running"  # noqa: E731
        found = find_by_contents(self.memory, self.name, notes, settled=runs)
        if found is None:
            now = time.monotonic()
            self._next_search = now + max(_PAUSE, _REST * (now - started))
        return found

    def note_event(self, event: Mapping[str, object]) -> None:
        """Take an event of QEMU: the map of the memory may have changed."""
        self._ram.note_event(event)

    def follow_memory(self) -> list[str]:
        """
        Read the map of the memory again if an event said that it may have changed.

        :return: What has changed, for a person, and was not returned before.
        """
        return self._ram.follow()

    def registers(self) -> list[bytes]:
        """
        Return ``struct elf_prstatus`` of each vCPU, in the order of vCPUs.

        QEMU stops a running VM for that, for about 2 ms, and lets it run again;
        both are events (STOP, RESUME).

        :raises TargetError: If QEMU does not answer.
        :raises FormatError: If the vCPUs are not in 64-bit mode (still booting).
        """
        return prstatus(self._notes(), self.machine, self.name)

    def _notes(self) -> Sequence[Note]:
        return self._printed_notes() if self._libvirt else self._dump().notes

    def _printed_notes(self) -> list[Note]:
        """
        Let QEMU print the registers.

        Emulated CPUs are stopped meanwhile, as a dump does: while they run, QEMU prints
        what they had some time ago. It takes CPUs of KVM out of the guest one by one.
        """
        # A VM that migrates would stand still to the end: libvirt lets none run then.
        running = self._has_kvm() or self.client.migrates()
        with nullcontext() if running else paused(self):
            text = self.client.command_line("info registers -a")
        return parse_registers(text, arch_from_elf(self.machine), self.name)

    def _has_kvm(self) -> bool:
        try:
            answer = self.client.execute("query-kvm")
        except QmpCommandError:
            return False
        return isinstance(answer, dict) and answer.get("enabled") is True

    def _dump(self) -> ElfCore:
        """Let QEMU dump one page: its notes hold the registers and VMCOREINFO."""
        begin = max(self.memory.ranges[0].start, _PAGE)  # Page 0 may be special.
        fd = os.memfd_create("kmemdump-registers", os.MFD_CLOEXEC)
        try:
            before = self.status()
            self.client.send_fd(fd, "kmemdump")
            place = {"protocol": "fd:kmemdump", "begin": begin, "length": _PAGE}
            self.client.execute("dump-guest-memory", {"paging": False, **place})
            # QEMU leaves it so after an error; see also is_paused().
            if before == "running" and self.status() in ("save-vm", "prelaunch"):
                self.cont()
            # Later output of QEMU is not read.
            data = os.pread(fd, _MAX_DUMP, 0)
        finally:
            os.close(fd)
        return parse_core(
            lambda at, count: data[at : at + count],
            len(data),
            f"registers of {self.name}",
        )

    def status(self) -> str:
        """Return QEMU's run state: ``running``, ``paused``, ``guest-panicked``, …"""
        return self.client.status()

    def stop(self) -> None:
        """Pause the VM."""
        self.client.pause(self.client.spec or self.name)

    def cont(self) -> None:
        """Let the VM run."""
        self.client.resume()

    def close(self) -> None:
        self.memory.close()
        self.client.close()
