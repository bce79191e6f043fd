# SPDX-License-Identifier: GPL-2.0-or-later
"""
The ``vm`` backend: a host that copies the regions out of its VM's memory.

It needs only a :class:`~kmemdump.memory.physical.Memory`, so tests use it, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kmemdump.backends import ELF_HEADER_ID, VMCOREINFO_ID
from kmemdump.errors import BackendError, KmemdumpError, NotCapturedError
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Region

__all__ = ["Dump", "VmBackend"]

# The host keeps the description itself. Physical addresses have at most 52 bits on
# x86_64 and aarch64, so the guest does not use this one.
_HOST_PLACE = 1 << 63


@dataclass(frozen=True, slots=True)
class Dump:
    """The regions of a VM at one time."""

    time: float
    """When copying began: seconds since the epoch."""
    contents: tuple[tuple[Region, bytes], ...]
    """The regions and their bytes, in the backend's order; its description first."""
    missing: tuple[tuple[Region, str], ...] = ()
    """The regions that could not be read, and why."""

    def core(self) -> bytes:
        """
        Concatenate the regions: a core file, if the backend was described.

        :raises NotCapturedError: If a region is missing: those behind it would be at
            wrong offsets.
        """
        if self.missing:
            names = ", ".join(region.name for region, _ in self.missing)
            raise NotCapturedError(
                f"the dump lacks {len(self.missing)} regions: {names}"
            )
        return b"".join(data for _, data in self.contents)


class VmBackend:
    """
    Remembers regions, and reads them when asked to.

    :param memory: The VM's memory; stays the caller's.
    :param max_bytes: Largest size of all regions together, in bytes.
    :param clock: Returns the time for dumps.
    """

    name = "vm"
    capacity: int | None = None
    alignment = 1

    def __init__(
        self,
        memory: Memory,
        *,
        max_bytes: int = 1 << 30,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._memory = memory
        self._max_bytes = max_bytes
        self._clock = clock
        self._regions: dict[int, Region] = {}
        self._bytes = 0
        self._described: list[tuple[Region, bytes]] = []

    @property
    def regions(self) -> Sequence[Region]:
        """The regions that it holds, in the order of a dump."""
        return [*(region for region, _ in self._described), *self._regions.values()]

    def register(self, region: Region) -> None:
        if region.id in self._regions:
            raise BackendError(f"id {region.id} is already used")
        size = self._bytes + region.size
        if size > self._max_bytes:
            raise BackendError(
                f"{region.name} would make it {size} bytes, "
                f"expected at most {self._max_bytes}"
            )
        self._regions[region.id] = region
        self._bytes = size

    def unregister(self, region: Region) -> None:
        kept = [item for item in self._described if item[0].id != region.id]
        if len(kept) < len(self._described):
            self._described = kept
        elif region.id in self._regions:
            self._bytes -= self._regions.pop(region.id).size
        else:
            raise BackendError(f"id {region.id} is not registered")

    def describe(self, header: bytes, vmcoreinfo: bytes) -> tuple[Region, Region]:
        place = _HOST_PLACE
        first = Region(ELF_HEADER_ID, "elfhdr", place, len(header))
        place += len(header)
        second = Region(VMCOREINFO_ID, "vmcoreinfo", place, len(vmcoreinfo))
        self._described = [(first, header), (second, vmcoreinfo)]
        return first, second

    def dump(self) -> Dump:
        """Copy all regions now; one that cannot be read doesn't stop the others."""
        contents = list(self._described)
        regions = list(self._regions.values())
        missing: list[tuple[Region, str]] = []
        begin = self._clock()
        for region in regions:
            try:
                data = self._memory.read(region.address, region.size)
            except (KmemdumpError, OSError) as error:
                missing.append((region, str(error)))
                continue
            if len(data) != region.size:
                problem = f"found {len(data)} bytes, expected {region.size}"
                missing.append((region, problem))
                continue
            contents.append((region, data))
        return Dump(begin, tuple(contents), tuple(missing))
