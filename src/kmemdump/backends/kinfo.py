# SPDX-License-Identifier: GPL-2.0-or-later
"""
The ``kinfo`` backend: Android's ``debug_kinfo``, with addresses of kernel tables.

It has fields for some kernel symbols; a region with the name of such a symbol sets its
field. Firmware and tools that read a whole RAM dump use it.
"""

from __future__ import annotations

from dataclasses import replace

from kmemdump.errors import BackendError, FormatError
from kmemdump.formats.kinfo import ADDRESSES, KINFO_MAGIC, Kinfo, pack_kinfo
from kmemdump.memory.physical import WritableMemory
from kmemdump.memory.ranges import Range, Region

__all__ = ["KinfoBackend", "erase_kinfo"]

_WORD = 4
_INFO_AT = 8  # Behind the magic number and the checksum.


class KinfoBackend:
    """
    Holds the addresses of kernel symbols in a ``debug_kinfo``.

    If the machine dies between two stores, a field and the checksum may be wrong.
    Readers expect that, since the kernel's own driver does the same.

    :param memory: The machine's memory; stays the caller's.
    :param where: The reserved region.
    :param facts: Layout and all fields that are not addresses.
    :raises BackendError: If the region is too small for the layout.
    """

    name = "kinfo"
    capacity = len(ADDRESSES)

    def __init__(self, memory: WritableMemory, where: Range, facts: Kinfo) -> None:
        self._memory = memory
        self._where = where
        self._held: dict[str, Region] = {}
        self._kinfo = replace(facts, addresses={})
        self._bytes = self._pack(self._kinfo)
        if len(self._bytes) > where.size:
            raise BackendError(
                f"kinfo of layout {facts.layout.value} has {len(self._bytes)} bytes, "
                f"expected at most {where.size}, as its region"
            )
        # Write the magic number last: the kinfo is not valid before.
        memory.write(where.start, bytes(_WORD))
        memory.write(where.start + _WORD, self._bytes[_WORD:])
        memory.write(where.start, self._bytes[:_WORD])

    def register(self, region: Region) -> None:
        if region.name not in ADDRESSES:
            raise BackendError(f"kinfo has no field for {region.name}")
        if region.name in self._held:
            raise BackendError(f"kinfo has {region.name} already")
        self._set({**self._held, region.name: region})

    def unregister(self, region: Region) -> None:
        held = {name: it for name, it in self._held.items() if it.id != region.id}
        if len(held) == len(self._held):
            raise BackendError(f"id {region.id} is not registered")
        self._set(held)

    def _set(self, held: dict[str, Region]) -> None:
        addresses = {name: region.address for name, region in held.items()}
        kinfo = replace(self._kinfo, addresses=addresses)
        new = self._pack(kinfo)
        # Fields are not aligned: only words that change are written.
        for at in (*range(_INFO_AT, len(new), _WORD), _WORD):
            if new[at : at + _WORD] != self._bytes[at : at + _WORD]:
                self._memory.write(self._where.start + at, new[at : at + _WORD])
        self._bytes, self._kinfo, self._held = new, kinfo, held

    def _pack(self, kinfo: Kinfo) -> bytes:
        try:
            return pack_kinfo(kinfo)
        except FormatError as error:
            raise BackendError(str(error)) from error


def erase_kinfo(memory: WritableMemory, where: Range) -> bool:
    """
    Erase a kinfo, so that no reader finds it.

    :return: Whether there was one.
    """
    magic = KINFO_MAGIC.to_bytes(_WORD, "little")
    found = memory.read(where.start, _WORD) == magic
    if found:
        memory.write(where.start, bytes(_WORD))
    return found
