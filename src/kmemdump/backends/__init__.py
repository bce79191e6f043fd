# SPDX-License-Identifier: GPL-2.0-or-later
"""
Backends: what can dump regions when the kernel cannot.

A registry has one backend at a time and is its only caller. A backend must not call
the registry.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from kmemdump.memory.ranges import Region

__all__ = ["ELF_HEADER_ID", "FIRST_ID", "VMCOREINFO_ID", "Backend", "SelfDescribing"]

ELF_HEADER_ID = 1
VMCOREINFO_ID = 2
"""Ids of a backend's first two regions, as in the kernel's kmemdump series."""
FIRST_ID = 3
"""Id of the first region that is marked."""


class Backend(Protocol):
    """Something outside the kernel that can copy regions at any time."""

    @property
    def name(self) -> str:
        """Short name, for messages."""

    @property
    def capacity(self) -> int | None:
        """
        Number of regions it can hold, or ``None`` without a limit.

        The two regions of a :class:`SelfDescribing` backend count. The registry never
        hands over more.
        """

    def register(self, region: Region) -> None:
        """
        Hold *region* from now on.

        :raises BackendError: If it cannot; nothing has changed then.
        """

    def unregister(self, region: Region) -> None:
        """
        Release *region*, which was registered or returned by :meth:`describe`.

        :raises BackendError: If it cannot; it still holds the region then.
        """


@runtime_checkable
class SelfDescribing(Backend, Protocol):
    """
    A backend whose dump starts with its own description.

    Its regions, concatenated in the order in which it got them, are an ELF
    core file.
    """

    @property
    def alignment(self) -> int:
        """
        The dump pads each region to a multiple of this many bytes, a power of two.

        Firmware often copies whole words only; Linux's Qualcomm minidump
        driver rounds each size up to 4.
        """

    def describe(self, header: bytes, vmcoreinfo: bytes) -> tuple[Region, Region]:
        """
        Put these bytes first in the dump, in place of older ones.

        Called before the first region is registered, and after each change of the
        list. With a fixed :attr:`capacity`, *header* has room for that
        many regions from the start and keeps its size, as long as the notes
        in it keep theirs.

        :param header: ELF header, program headers, notes.
        :param vmcoreinfo: End of the last note, padded.
        :return: The regions that hold them, with :data:`ELF_HEADER_ID` and
            :data:`VMCOREINFO_ID`.
        :raises BackendError: If there is no room for them.
        """
