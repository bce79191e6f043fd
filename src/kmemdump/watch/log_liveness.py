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
from kmemdump.arch.pagetable import read_virtual
from kmemdump.diagnosis.log_block import kernel_records
from kmemdump.diagnosis.oops_patterns import find_oops
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.kernel.printk import head_address, read_newest
from kmemdump.memory.physical import Memory
from kmemdump.vmcoreinfo import VmcoreInfo
from kmemdump.watch.liveness import KernelState

__all__ = ["LogLiveness"]

_WORD = 8
_IDS = 1 << 62
"""Number of ids of records; the first id is one of the last of them."""
_MAX_NEW = 2048
"""Most records that are read at once."""
_AGAIN = 64
"""Records that are read again, since some were not yet complete the last time."""

_PANIC = re.compile(r"Kernel panic - not syncing|---\[ end Kernel panic")
_LEAVING = re.compile(
    r"reboot: (?:Restarting system|Power down|System halted|Power off not available)|"
    r"kexec(?:_core)?: Starting new kernel"
)


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
        self._table = self._arch.page_table(info)
        self._head_at = head_address(self._reader(memory), info)
        self._uts = info.symbol("init_uts_ns") + info.offset("uts_namespace.name")
        self._identity = self._read_identity(memory)
        self._head: int | None = None
        """Up to which record the log was read."""
        self._panicked = self._oopsed = self._leaving = False

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
        return KernelState(
            same=same,
            panicked=same and self._panicked,
            oopsed=same and self._oopsed,
            booted=same and not self._leaving,
            leaving=same and self._leaving,
        )

    def log_head(self, memory: Memory) -> bytes:
        """Read something that changes with each message that the kernel logs."""
        return self._reader(memory)(self._head_at, _WORD)

    def clock_watch(self, memory: Memory) -> Callable[[], bool]:
        """
        Return a function that checks if the kernel has logged since it was last read.

        After a reset, all of a kernel may still be in memory. It logs nothing; the
        next one does.
        """
        before = self._head

        def has_moved() -> bool:
            try:
                head = int.from_bytes(self.log_head(memory), "little")
            except NotCapturedError:
                return True  # The next kernel overwrote it.
            return before is None or head != before

        return has_moved

    def _reader(self, memory: Memory) -> Callable[[int, int], bytes]:
        return lambda address, size: read_virtual(
            self._table, memory.read, address, size
        )

    def _read_identity(self, memory: Memory) -> bytes:
        # struct new_utsname: sysname[65], nodename[65], which the guest sets; release
        # and version, which has the time of the build.
        return self._reader(memory)(self._uts + 2 * 65, 2 * 65)

    def _read_log(self, memory: Memory) -> None:
        try:
            head = int.from_bytes(self.log_head(memory), "little")
            if head == self._head:
                return
            count = _MAX_NEW
            if self._head is not None:
                count = min((head - self._head) % _IDS + _AGAIN, _MAX_NEW)
            log = read_newest(self._reader(memory), self._info, count)
        except (FormatError, NotCapturedError):
            return  # The ring changed meanwhile; the next look will tell.
        if not (log.missing or log.unfinished):
            self._head = head
        records = kernel_records(log.records)
        texts = [record.text for record in records]
        self._panicked |= any(_PANIC.match(text) for text in texts)
        self._leaving |= any(_LEAVING.match(text) for text in texts)
        self._oopsed |= find_oops(records) is not None
