# SPDX-License-Identifier: GPL-2.0-or-later
"""
Read from its log alone whether a kernel runs, has panicked or is going down.

For a kernel whose variables and types are not known. VMCOREINFO describes the ring
buffer of the log, so a panic, an oops and an orderly end are known by the lines that
the kernel logs. That a log is silent proves nothing. The CPUs show whether they take
interrupts (:mod:`kmemdump.watch.hang_detector`).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from kmemdump.arch.architecture import arch_from_info
from kmemdump.diagnosis.end_patterns import (
    OrderlyEnd,
    find_emergency,
    find_orderly_end,
)
from kmemdump.diagnosis.log_findings import find_oops
from kmemdump.errors import NotCapturedError
from kmemdump.memory.physical import Memory
from kmemdump.vmcoreinfo import VmcoreInfo
from kmemdump.watch.liveness import KernelState
from kmemdump.watch.log_tail import LogTail

__all__ = ["LogLiveness"]

_PANIC = re.compile(r"Kernel panic - not syncing|---\[ end Kernel panic")


class LogLiveness:
    """
    Watches a kernel's log.

    :param info: Of the kernel, with the layout of its log.
    :param memory: The kernel's memory.
    :raises NotCapturedError: If the log is not there.
    :raises FormatError: If the log is damaged.
    """

    def __init__(self, info: VmcoreInfo, memory: Memory) -> None:
        self._info = info
        self._arch = arch_from_info(info)
        self._log = LogTail(info, memory)
        self._uts = info.symbol("init_uts_ns") + info.offset("uts_namespace.name")
        self._identity = self._read_identity(memory)
        self._panicked = self._oopsed = self._emergency = False
        self._end: OrderlyEnd | None = None

    def read(self, memory: Memory) -> KernelState:
        """
        Read the state of the kernel.

        :raises NotCapturedError: If the memory cannot be read any more.
        """
        try:
            same = self._read_identity(memory) == self._identity
        except NotCapturedError:
            # Its page table is gone; the memory itself may be there.
            memory.read(self._arch.image_address(self._info, self._uts), 1)
            same = False
        if same:
            self._read_log(memory)
        end = self._end if same else None
        return KernelState(
            same=same,
            panicked=same and self._panicked,
            oopsed=same and self._oopsed,
            booted=same and end is None,
            leaving=end is not None,
            end=end,
        )

    def log_head(self, memory: Memory) -> int:
        """Read a number that changes with each message that the kernel logs."""
        return self._log.head(memory)

    def accept_name(self, memory: Memory) -> None:
        """Take the name and version in memory for the kernel's, whatever they are."""
        self._identity = self._read_identity(memory)

    def clock_watch(self, memory: Memory) -> Callable[[], bool]:
        """
        Return a function that checks if the kernel has logged since it was last read.

        After a reset, all of a kernel may still be in memory. It logs nothing; the
        next one does.
        """
        before = self._log.seen

        def has_moved() -> bool:
            try:
                head = self.log_head(memory)
            except NotCapturedError:
                return True  # The next kernel overwrote it.
            return before is None or head != before

        return has_moved

    def _read_identity(self, memory: Memory) -> bytes:
        # struct new_utsname: sysname[65], nodename[65], which the guest sets; release
        # and version, which has the time of the build.
        return self._log.reader(memory)(self._uts + 2 * 65, 2 * 65)

    def _read_log(self, memory: Memory) -> None:
        records = self._log.read_new(memory)
        if records is None:
            return
        self._panicked |= any(_PANIC.match(record.text) for record in records)
        self._oopsed |= find_oops(records) is not None
        self._emergency |= find_emergency(records) is not None
        if not self._emergency:
            self._end = self._end or find_orderly_end(records)
