# SPDX-License-Identifier: GPL-2.0-or-later
"""The minidump table of a machine: find it, lock it, and open it for writing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kmemdump.backends.minidump import MinidumpBackend, is_marked
from kmemdump.errors import UsageError
from kmemdump.firmware.discovery import (
    ReservedRanges,
    find_live_reserved,
    find_reserved,
)
from kmemdump.kernel.attach import Kernel
from kmemdump.kernel.iomem import find_system_ram
from kmemdump.marking.lock import lock_table, table_name
from kmemdump.memory.ranges import Range, intersect
from kmemdump.targets import Closing, Target
from kmemdump.targets.live import LiveTarget
from kmemdump.targets.writable import check_writable, open_writable

__all__ = ["FirmwareTable", "TableOptions", "check_reserved"]


@dataclass(frozen=True, slots=True)
class TableOptions:
    """Where a machine's minidump table is, and how it is written."""

    smem: Range | None = None
    """By default, found through a device tree, or by its contents."""
    scratch: Range | None = None
    """
    Reserved memory for the dump's description, 64 KiB or more; by default, the device
    tree's ``kmemdump,scratch`` node.
    """
    scratch_item: int | None = None
    """Number of an SMEM item to allocate instead of *scratch*."""
    device_tree: Path | None = None
    """The machine's DTB; by default, it is looked for in the machine's memory."""
    no_encryption: bool = False
    """Ask the firmware not to encrypt the dump."""
    lock_folder: Path | None = None
    """For a lock that lets one process write at a time; ``None`` takes no lock."""


class FirmwareTable(Closing):
    """
    A machine's table, found, locked, and open for writing.

    :param target: The machine; the caller closes it.
    :raises UnsupportedError: If its memory cannot be written, or another process writes
        to the table.
    :raises KmemdumpError: If there is no table.
    """

    def __init__(self, target: Target, options: TableOptions) -> None:
        check_writable(target)
        ranges = _find_ranges(target, options)
        assert ranges.smem is not None
        self.name = table_name(target.name, MinidumpBackend.name, ranges.smem.start)
        """For file names."""
        self.reserved: Sequence[Range] = ranges.known
        """Memory that is written; the kernel must not use it."""
        self._smem = ranges.smem
        self._scratch = ranges.scratch if options.scratch_item is None else None
        self._options = options
        with ExitStack() as stack:
            stack.enter_context(lock_table(options.lock_folder, self.name))
            self._memory = open_writable(target, ranges.known)
            stack.callback(self._memory.close)
            self._resources = stack.pop_all()

    def open_backend(self) -> MinidumpBackend:
        """
        Return a backend for the table, which takes over the regions of an earlier run.

        :raises BackendError: If the table is not ready or has no room.
        """
        return MinidumpBackend(
            self._memory,
            self._smem,
            scratch=self._scratch,
            scratch_item=self._options.scratch_item,
            no_encryption=self._options.no_encryption,
        )

    def withdraw(self) -> None:
        """
        Remove all our regions, those of earlier runs included.

        :raises KmemdumpError: If there is no such table.
        """
        if is_marked(self._memory, self._smem):
            self.open_backend().withdraw()

    def close(self) -> None:
        """Close the memory and unlock the table; the regions stay registered."""
        self._resources.close()


def _find_ranges(target: Target, options: TableOptions) -> ReservedRanges:
    given = ReservedRanges(options.smem, options.scratch)
    if isinstance(target, LiveTarget):
        return find_live_reserved(given, options.device_tree)
    return find_reserved(given, target.memory, target.name, options.device_tree)


def check_reserved(kernel: Kernel, ranges: Sequence[Range]) -> None:
    """
    Refuse to write to memory that the kernel uses.

    :raises UsageError: If one of *ranges* is such memory.
    """
    if kernel.problem is not None:
        return  # Without symbols, the kernel's use of memory is not known.
    used = intersect(find_system_ram(kernel.prog), ranges)
    if used:
        raise UsageError(
            f"{used[0]} is memory that the kernel uses, expected some that is reserved "
            "and hidden from it (x86: memmap=SIZE$ADDRESS; device tree: no-map)"
        )
