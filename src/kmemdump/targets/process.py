# SPDX-License-Identifier: GPL-2.0-or-later
"""
The guest of any virtual machine monitor, in the monitor's process.

A monitor has its guest's RAM mapped: QEMU, Firecracker, Cloud Hypervisor, crosvm and
others. The kernel is found in it by its note or its contents, and proves the map of
physical memory. What only the monitor knows, the registers of the CPUs, is missing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from kmemdump.errors import FormatError, NotCapturedError, TargetError
from kmemdump.kernel_search.completion import complete
from kmemdump.kernel_search.finder import is_disproven
from kmemdump.kernel_search.links import free_blocks
from kmemdump.kernel_search.notes import is_present
from kmemdump.kernel_search.placement import Placement, find_placements, place_further
from kmemdump.memory.changing import ChangingMemory
from kmemdump.memory.physical import PAGE_SIZE, StoredMemory
from kmemdump.memory.placed import PlacedMemory
from kmemdump.memory.ranges import Extent, Range, parts_in, total
from kmemdump.targets import Closing
from kmemdump.targets.process_channel import ProcessChannel
from kmemdump.targets.process_memory import ProcessMemory, open_process
from kmemdump.targets.qmp_channel import QmpChannel
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["ProcessTarget"]

_MAX_KERNELS = 8
_PAUSE = 5.0
"""Least seconds between two searches while there is no kernel."""
_REST = 4.0
"""The same in units of the time that the last search took."""
_REPEAT = 30.0
"""Least seconds between two searches while the kernel of the first is still there."""
_SHARE = 0.02
"""Most of the time that these searches may take."""
_PAUSE_AFTER_MISS = 10.0
"""Least seconds between two looks at the process's mappings: a read may miss often."""
_LONGEST_PAUSE = 600.0
_LOOKS = 10
_BETWEEN_LOOKS = 0.2
"""Seconds; an idle kernel wakes up about once in a second."""
_DATA = 4 << 20
"""Bytes around a variable that hold most others."""
_PAGES, _MOST_PAGES = 16384, 131072
"""
Pages that are searched for what leads to memory that was added, at the first time and
at most: 64 MiB take a second.
"""


class ProcessTarget(Closing):
    """
    The guest of a process.

    :param pid: Id of the process of the virtual machine monitor.
    :param vmcoreinfo: To be used instead of the guest's own.
    :param clock: Returns seconds.
    :raises TargetError: If the process's memory cannot be read.
    """

    abilities: frozenset[str] = frozenset()
    """A process that is stopped gives no answer."""

    def __init__(
        self,
        pid: int,
        *,
        vmcoreinfo: VmcoreInfo | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"pid:{pid}"
        self.pid = pid
        self._given = vmcoreinfo
        self._clock = clock
        self.folder = open_process(pid)
        """Its folder in /proc."""
        try:
            self.client: QmpChannel = self._connect()
            self._host = ProcessMemory(pid, self.folder)
        except BaseException:
            os.close(self.folder)
            raise
        self.memory = ChangingMemory(PlacedMemory(self._host, ()), self._missed)
        self._placement: Placement | None = None
        self._remembered: Placement | None = None
        self._lock = threading.Lock()
        self._next_search = self._next_full_search = self._next_look = clock()
        self._wait = _PAUSE_AFTER_MISS
        self._pages = _PAGES
        self._free: Sequence[Range] = ()
        """Mappings that were searched for memory of the guest."""
        self._news: list[str] = []

    def _connect(self) -> ProcessChannel:
        """Return the way to the monitor."""
        return ProcessChannel(self.pid, self.folder)

    @property
    def machine(self) -> int:
        """
        Architecture: an ELF ``e_machine``.

        :raises TargetError: If there is no kernel yet, which has one.
        """
        return self._place().arch.machine

    def vmcoreinfo(self) -> VmcoreInfo:
        """
        Return the VMCOREINFO of the guest's kernel, completed. Kept for later calls.

        :raises TargetError: If there is none.
        :raises FormatError: If there are several kernels.
        """
        return self._place().info

    def forget(self) -> None:
        """
        Forget the kernel, since the guest may boot another one.

        It is found again without a search if it is still there; now and then, all
        memory is searched for another one.
        """
        self._remembered = self._placement or self._remembered
        self._placement = None

    def registers(self) -> list[bytes]:
        """Return none: only the monitor can read them."""
        return []

    def status(self) -> str:
        """Return ``running`` or ``paused``."""
        return self.client.status()

    def stop(self) -> None:
        """
        Stop the process, the guest's CPUs with it.

        It goes on if this process ends. Its manager gets no answer from it meanwhile.
        """
        self.client.execute("stop")

    def cont(self) -> None:
        """Let the process go on."""
        self.client.execute("cont")

    def note_event(self, event: Mapping[str, object]) -> None:
        """Do nothing: a process has no events."""

    def follow_memory(self) -> list[str]:
        """Return what has changed about the memory, for a person, and only once."""
        news, self._news = self._news, []
        return news

    def close(self) -> None:
        self.client.close()
        self.memory.close()
        self._host.close()
        if self.folder >= 0:
            os.close(self.folder)
            self.folder = -1

    def _place(self) -> Placement:
        if self._placement is None and self._clock() < self._next_full_search:
            self._placement = self._recall()
        if self._placement is None:
            started = self._clock()
            found = self._search()
            now = self._clock()
            self._next_full_search = now + max(_REPEAT, (now - started) / _SHARE)
            self.memory.replace(PlacedMemory(self._host, found.extents))
            self._placement = found
        return self._placement

    def _recall(self) -> Placement | None:
        """Return the kernel that was forgotten, if it is still in memory."""
        found = self._remembered
        if found is None:
            return None
        memory = PlacedMemory(self._host, found.extents)
        gone = not is_present(found.info, memory) or is_disproven(found.info, memory)
        return None if gone else found

    def _search(self) -> Placement:
        started = self._clock()
        if started < self._next_search:
            raise self._no_kernel("looked for a short time ago")
        try:
            self._host.refresh()
            found = self._find()
        except BaseException:
            now = self._clock()
            self._next_search = now + max(_PAUSE, _REST * (now - started))
            raise
        found = place_further(found, self._host)
        if self._given is not None:
            memory = PlacedMemory(self._host, found.extents)
            found = replace(found, info=complete(self._given, memory))
        return found

    def _find(self) -> Placement:
        kernels = find_placements(
            self._host,
            self._host.starts,
            self.name,
            settled=lambda: self.status() == "running",
        )
        found = list(islice(kernels, _MAX_KERNELS))
        if len(found) > 1 and self._given is not None:
            found = [it for it in found if it.info.osrelease == self._given.osrelease]
        if len(found) > 1:
            # A reset leaves what was there before.
            found = _living(self._host, found) or found
        if not found:
            raise self._no_kernel("none found")
        if len(found) > 1:
            names = ", ".join(f"{it.info.osrelease} ({it.info.source})" for it in found)
            raise FormatError(
                self.name,
                f"{len(found)} kernels in its memory, expected one: {names}\n"
                "give the VMCOREINFO of the right one with --vmcoreinfo FILE",
            )
        return found[0]

    def _no_kernel(self, why: str) -> TargetError:
        size = total(self._host.ranges) >> 20
        return TargetError(
            f"{self.name}: no kernel in the {size} MiB that the process can write "
            f"({why}), expected a virtual machine monitor with a Linux guest"
        )

    def _missed(self) -> bool:
        """Look for memory that the process has mapped for its guest since."""
        placement = self._placement
        if placement is None or self._clock() < self._next_look:
            return False
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return self._add_memory(placement)
        except (TargetError, FormatError, NotCapturedError):
            return False  # The process has ended, or changes its mappings just now.
        finally:
            self._next_look = self._clock() + self._wait
            self._lock.release()

    def _add_memory(self, placement: Placement) -> bool:
        self._host.refresh()
        kept = self._kept(placement)
        used = [Range(item.offset, item.size) for item in kept.extents]
        free = free_blocks(self._host, used)
        if free != self._free:
            self._free, self._wait, self._pages = free, _PAUSE_AFTER_MISS, _PAGES
        elif self._wait < _LONGEST_PAUSE:
            # The kernel may not use it yet, or it is not the guest's.
            self._wait *= 2
            self._pages = min(2 * self._pages, _MOST_PAGES)
        else:
            return False
        found = place_further(kept, self._host, self._pages) if free else kept
        if sorted(found.extents) == sorted(placement.extents):
            return False
        before = total(self.memory.ranges)
        self.memory.replace(PlacedMemory(self._host, found.extents))
        self._placement = found
        now = total(self.memory.ranges)
        self._news.append(f"its RAM has {now >> 20} MiB now, {before >> 20} MiB before")
        return True

    def _kept(self, placement: Placement) -> Placement:
        """Return the placement without memory that the process has no more."""
        kept: list[Extent] = []
        for item in placement.extents:
            place = Range(item.offset, item.size)
            for part in parts_in(place, self._host.ranges):
                at = item.address + part.start - item.offset
                kept.append(Extent(at, part.size, part.start))
        return replace(placement, extents=kept)


def _living(host: StoredMemory, found: Sequence[Placement]) -> list[Placement]:
    """Return the kernels whose variables change: those that run."""
    before = [_variables(host, item) for item in found]
    for _ in range(_LOOKS):
        time.sleep(_BETWEEN_LOOKS)
        living = [
            item
            for item, data in zip(found, before, strict=True)
            if data and _variables(host, item) != data
        ]
        if living:
            return living
    return []


def _variables(host: StoredMemory, placement: Placement) -> bytes:
    """Read some of a kernel's variables; its clock is among them."""
    info, arch = placement.info, placement.arch
    address = arch.image_address(info, info.symbol("init_uts_ns"))
    memory = PlacedMemory(host, placement.extents)
    pieces = []
    for at in range(address - _DATA, address + _DATA, PAGE_SIZE):
        try:
            pieces.append(memory.read(at & -PAGE_SIZE, PAGE_SIZE))
        except NotCapturedError:
            pieces.append(b"")
    return b"".join(pieces)
