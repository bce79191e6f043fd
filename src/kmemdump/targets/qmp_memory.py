# SPDX-License-Identifier: GPL-2.0-or-later
"""
A VM's RAM, followed while memory is added to the VM or taken away.

QEMU's map of the guest's memory is read again after the events that come with such a
change, and when a read misses: guests without ACPI add memory without an event. A
balloon changes no map: what the guest gave back is read as zeros.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from kmemdump.errors import FormatError, TargetError
from kmemdump.memory.changing import ChangingMemory
from kmemdump.memory.ranges import total
from kmemdump.targets.qmp_channel import QmpChannel
from kmemdump.targets.qmp_ram import open_ram, read_ram_map

__all__ = ["VmRam"]

# Of QEMU's qapi/acpi.json, qapi/qdev.json and qapi/machine.json. A guest that took
# memory over, or gave it back, reports that by ACPI.
_CHANGES = frozenset(("ACPI_DEVICE_OST", "MEMORY_DEVICE_SIZE_CHANGE"))
_REMOVED = "DEVICE_DELETED"
"""Another device may be in its place already, and the map look the same."""
_PAUSE = 1.0
"""Least seconds between two readings of the map: a guest may cause events at will."""
_PAUSE_AFTER_MISS = 10.0
"""The same for reads that miss: a damaged kernel has pointers to everywhere."""
_PAUSE_AFTER_ERROR = 60.0
"""The same if QEMU did not answer."""
_SHARE = 0.02
"""Most of the time that reading the map may take."""
_MAX_NEWS = 100


class VmRam:
    """
    The RAM of a VM.

    :param client: Connection to QEMU; stays the caller's.
    :param clock: Returns seconds.
    :raises TargetError: If the RAM cannot be read.
    :raises FormatError: If QEMU's map makes no sense.
    """

    def __init__(
        self, client: QmpChannel, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._clock = clock
        self._map = read_ram_map(client)
        self.memory = ChangingMemory(open_ram(client, self._map), self._missed)
        """Closed by the caller."""
        self._lock = threading.Lock()
        self._next = self._next_after_miss = clock()
        self._stale = self._removed = False
        self._news: list[str] = []
        self._problem = ""

    def note_event(self, event: Mapping[str, object]) -> None:
        """Take an event of QEMU; those that do not concern memory are ignored."""
        name = event.get("event")
        self._removed |= name == _REMOVED
        self._stale |= self._removed or name in _CHANGES

    def follow(self) -> list[str]:
        """
        Read the map again if an event said so, and it is time.

        :return: What has changed and was not returned before, for a person.
        """
        if self._stale:
            self._update(self._next)
        news, self._news = self._news, []
        return news

    def _missed(self) -> bool:
        return self._update(self._next if self._stale else self._next_after_miss)

    def _update(self, earliest: float) -> bool:
        """Read the map again; return whether there is another memory now."""
        if not self._lock.acquire(blocking=False):
            return False  # Of the reads that compare the new memory.
        try:
            started = self._clock()
            if started < earliest or not self._client.connected:
                return False
            try:
                changed = self._replace()
                pause, self._problem = _PAUSE, ""
            except (TargetError, FormatError) as error:
                self._note_problem(str(error).splitlines()[0])
                changed, pause = False, _PAUSE_AFTER_ERROR
            ended = self._clock()
            pause = max(pause, (ended - started) / _SHARE)
            self._next = ended + pause
            self._next_after_miss = ended + max(pause, _PAUSE_AFTER_MISS)
            return changed
        finally:
            self._lock.release()

    def _replace(self) -> bool:
        removed = self._removed
        self._stale = self._removed = False  # An event from now on is a further one.
        try:
            return self._open_map(removed)
        except (TargetError, FormatError):
            self._removed = removed
            raise

    def _open_map(self, removed: bool) -> bool:
        found = read_ram_map(self._client)
        if found == self._map and not removed:
            return False
        before = total(self.memory.ranges)
        self.memory.replace(open_ram(self._client, found))
        same, self._map = found == self._map, found
        if not same:
            now = total(self.memory.ranges)
            self._tell(f"its RAM has {now >> 20} MiB now, {before >> 20} MiB before")
        return True

    def _note_problem(self, problem: str) -> None:
        self._stale = True
        if problem != self._problem:
            self._problem = problem
            self._tell(f"cannot follow its memory: {problem}")

    def _tell(self, text: str) -> None:
        if len(self._news) < _MAX_NEWS:
            self._news.append(text)
