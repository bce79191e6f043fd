# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left of a VM whose kernel died: its memory, or a copy of its regions."""

from __future__ import annotations

from bisect import bisect_right

from kmemdump.backends import ELF_HEADER_ID, VMCOREINFO_ID
from kmemdump.backends.vm import Dump
from kmemdump.errors import NotCapturedError
from kmemdump.memory.ranges import Range, merge
from kmemdump.targets import Closing, Target
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["CopiedMemory", "DeadVm"]


class DeadVm(Closing):
    """
    A dead VM as a target: only its memory is still read.

    :param target: The VM; stays the caller's.
    :param info: The kernel's, read while it lived.
    :param registers: ``struct elf_prstatus`` of each CPU; empty if they are lost.
    """

    def __init__(
        self, target: Target, info: VmcoreInfo, registers: list[bytes]
    ) -> None:
        self.name = target.name
        self.machine = target.machine
        self.memory = target.memory
        self._info = info
        self._registers = registers

    def vmcoreinfo(self) -> VmcoreInfo:
        return self._info

    def registers(self) -> list[bytes]:
        return self._registers

    def close(self) -> None:
        """Close nothing: the target closes its memory."""


class CopiedMemory:
    """The regions that a backend copied, as memory."""

    def __init__(self, dump: Dump) -> None:
        copies = sorted(
            (region.address, data)
            for region, data in dump.contents
            # The description is nowhere in the kernel's memory.
            if region.id not in (ELF_HEADER_ID, VMCOREINFO_ID)
        )
        self.ranges = merge(Range(address, len(data)) for address, data in copies)
        self._starts = [item.start for item in self.ranges]
        self._data = [bytearray(item.size) for item in self.ranges]
        for address, data in copies:
            i = bisect_right(self._starts, address) - 1
            at = address - self._starts[i]
            self._data[i][at : at + len(data)] = data

    def read(self, address: int, size: int) -> bytes:
        i = bisect_right(self._starts, address) - 1
        if i < 0 or address + size > self.ranges[i].end:
            raise NotCapturedError(f"the last refresh did not copy {address:#x}")
        at = address - self._starts[i]
        return bytes(self._data[i][at : at + size])

    def close(self) -> None:
        self._data = []
