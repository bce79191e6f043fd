# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left of a kernel that died: its memory, or a copy of some of it."""

from __future__ import annotations

from bisect import bisect_right

from kmemdump.backends import ELF_HEADER_ID, VMCOREINFO_ID
from kmemdump.backends.vm import Dump
from kmemdump.errors import NotCapturedError
from kmemdump.memory.ranges import Range, merge
from kmemdump.targets import Closing, Target
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["DumpMemory", "Remains"]


class Remains(Closing):
    """A target that is not asked for more than its memory."""

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
        """Close nothing: all belongs to the target."""


class DumpMemory:
    """The memory that a backend copied."""

    def __init__(self, dump: Dump) -> None:
        pieces = sorted(
            (region.address, data)
            for region, data in dump.contents
            # The description is nowhere in the kernel's memory.
            if region.id not in (ELF_HEADER_ID, VMCOREINFO_ID)
        )
        self.ranges = merge(Range(address, len(data)) for address, data in pieces)
        self._starts = [item.start for item in self.ranges]
        self._data = [bytearray(item.size) for item in self.ranges]
        for address, data in pieces:
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
