# SPDX-License-Identifier: GPL-2.0-or-later
"""
The ``kdump`` backend: a crash kernel copies the regions.

It finds their list in the dead kernel's memory (:mod:`kmemdump.formats.kdump_list`), so
this kernel has nothing to do with it.
"""

from __future__ import annotations

import time

from kmemdump.backends import ELF_HEADER_ID, VMCOREINFO_ID
from kmemdump.errors import BackendError, FormatError
from kmemdump.formats.kdump_list import (
    LIST_MAGIC,
    LIST_SIZE,
    ListHalf,
    half_places,
    pack_anchor,
    pack_half,
    parse_list,
)
from kmemdump.memory.physical import WritableMemory
from kmemdump.memory.ranges import Range, Region

__all__ = ["KdumpBackend"]

_WORD = 8
_CHANGES = 20
"""Bits for changes within a second, of which there are fewer."""


class KdumpBackend:
    """
    Holds regions in a list for the crash kernel.

    The list changes when it is described: all regions at once.

    :param memory: The machine's memory; stays the caller's.
    :param where: The list's memory. A list that is there stays valid until there is a
        new description.
    :raises BackendError: If it is too small, or starts elsewhere.
    """

    name = "kdump"
    capacity = None
    alignment = 1

    def __init__(self, memory: WritableMemory, where: Range) -> None:
        if where.start % LIST_SIZE or where.size < LIST_SIZE:
            raise BackendError(
                f"{where}: no place for a list, expected {LIST_SIZE:#x} bytes at a "
                f"multiple of {LIST_SIZE:#x}"
            )
        self._memory = memory
        self._start = where.start
        self._ids: set[int] = set()
        # Of the current half. That of a later boot is larger: memory may keep the list
        # of an earlier one, elsewhere.
        self._sequence, self._half = int(time.time()) << _CHANGES, 0
        data = memory.read(where.start, LIST_SIZE)
        try:
            found = parse_list(data, where.start, "list")
        except FormatError:
            self._erase()
            anchor = pack_anchor(where.start)
            # Its first word last: there is no list before.
            memory.write(where.start + _WORD, anchor[_WORD:])
            memory.write(where.start, anchor[:_WORD])
            return
        if found.current is not None:
            self._sequence = max(self._sequence, found.current.sequence)
            self._half = found.halves.index(found.current)

    def register(self, region: Region) -> None:
        if region.id in self._ids:
            raise BackendError(f"id {region.id} is already used")
        self._ids.add(region.id)

    def unregister(self, region: Region) -> None:
        if region.id in (ELF_HEADER_ID, VMCOREINFO_ID):
            self._erase()
            return
        if region.id not in self._ids:
            raise BackendError(f"id {region.id} is not registered")
        self._ids.remove(region.id)

    def describe(self, header: bytes, vmcoreinfo: bytes) -> tuple[Region, Region]:
        half = 1 - self._half
        try:
            data = pack_half(ListHalf(self._sequence + 1, header + vmcoreinfo))
        except FormatError as error:
            raise BackendError(str(error)) from error
        at = self._start + half_places()[half]
        self._memory.write(at, bytes(_WORD))  # Not valid while it is written.
        self._memory.write(at + _WORD, data[_WORD:])
        self._memory.write(at, data[:_WORD])
        self._sequence, self._half = self._sequence + 1, half
        start = at + len(data) - len(header) - len(vmcoreinfo)
        return (
            Region(ELF_HEADER_ID, "elfhdr", start, len(header)),
            Region(VMCOREINFO_ID, "vmcoreinfo", start + len(header), len(vmcoreinfo)),
        )

    def withdraw(self) -> None:
        """Remove the list, also one of an earlier run."""
        self._memory.write(self._start, bytes(len(LIST_MAGIC)))
        self._erase()

    def _erase(self) -> None:
        for at in half_places():
            self._memory.write(self._start + at, bytes(_WORD))
