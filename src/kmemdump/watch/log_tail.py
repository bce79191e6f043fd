# SPDX-License-Identifier: GPL-2.0-or-later
"""The newest records of a kernel's log, read by VMCOREINFO alone, as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kmemdump.arch.architecture import arch_from_info
from kmemdump.arch.pagetable import read_virtual
from kmemdump.diagnosis.log_block import kernel_records
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.kernel.printk import Log, LogRecord, head_address, read_newest
from kmemdump.memory.physical import Memory
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["LogTail"]

_WORD = 8
_IDS = 1 << 62
"""Number of ids of records; the first id is one of the last of them."""
_MAX_NEW = 2048
"""Most records that are read at once."""
_AGAIN = 64
"""Records that are read again, since some were not yet complete the last time."""


class LogTail:
    """
    The log of a kernel that runs.

    :param info: Of the kernel, with the layout of its log.
    :param memory: The kernel's memory.
    :raises NotCapturedError: If the log is not there.
    :raises FormatError: If the log is damaged.
    """

    def __init__(self, info: VmcoreInfo, memory: Memory) -> None:
        self._info = info
        self._table = arch_from_info(info).page_table(info)
        self._head_at = head_address(self.reader(memory), info)
        self.seen: int | None = None
        """The head up to which the log was read by :meth:`read_new`."""

    def reader(self, memory: Memory) -> Callable[[int, int], bytes]:
        """Return a function that reads (virtual address, size) of the kernel."""
        return lambda address, size: read_virtual(
            self._table, memory.read, address, size
        )

    def head(self, memory: Memory) -> int:
        """
        Read a number that changes with each message that the kernel logs.

        :raises NotCapturedError: If the memory cannot be read.
        """
        return int.from_bytes(self.reader(memory)(self._head_at, _WORD), "little")

    def read_last(self, memory: Memory, count: int) -> Log:
        """
        Return the last records.

        :raises NotCapturedError: If the memory cannot be read.
        :raises FormatError: If the ring changed meanwhile, or is damaged.
        """
        return read_newest(self.reader(memory), self._info, count)

    def read_new(self, memory: Memory) -> Sequence[LogRecord] | None:
        """
        Return the kernel's own records since the last call, and some before them.

        :return: None if there is none, or the log cannot be read just now.
        """
        try:
            head = self.head(memory)
            if head == self.seen:
                return None
            count = _MAX_NEW
            if self.seen is not None:
                count = min((head - self.seen) % _IDS + _AGAIN, _MAX_NEW)
            log = self.read_last(memory, count)
        except (FormatError, NotCapturedError):
            return None  # The ring changed meanwhile; the next look will tell.
        if not (log.missing or log.unfinished):
            self.seen = head
        return kernel_records(log.records)
