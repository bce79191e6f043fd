# SPDX-License-Identifier: GPL-2.0-or-later
"""
Read the kernel variables that show whether it has panicked or is going down.

That it goes down in an orderly way, only its log says (:mod:`.log_tail`):
``system_state`` is the same after ``emergency_restart()``.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from drgn import Program, sizeof

from kmemdump.diagnosis.end_patterns import OrderlyEnd, find_orderly_end
from kmemdump.errors import FormatError, NotCapturedError, UnsupportedError
from kmemdump.kernel.attach import Kernel
from kmemdump.kernel.optional import ABSENT, optional
from kmemdump.memory.physical import Memory
from kmemdump.watch.kernel_variables import Variable, find_scalar, resolver
from kmemdump.watch.log_tail import LogTail

__all__ = ["KernelState", "Liveness"]

_NO_CPU = 0xFFFFFFFF  # PANIC_CPU_INVALID, Linux include/linux/panic.h
_TAINT_DIE = 1 << 7  # Linux include/linux/panic.h
_SYSTEM_HALT = 4
_SYSTEM_SUSPEND = 7
_LAST_WORDS = 256
"""Records of the log in which a kernel that ends says why."""


@dataclass(frozen=True, slots=True)
class KernelState:
    """The state of a kernel, as its memory shows it."""

    same: bool
    """Whether the kernel is still in memory at all."""
    panicked: bool
    oopsed: bool
    """Whether it survived an oops, or is about to panic because of one."""
    booted: bool
    """Whether it has booted and is not going down."""
    leaving: bool
    """
    Whether it is going down: to reboot, power off or halt, in an orderly way or not.
    """
    end: OrderlyEnd | None = None
    """How it ends, if its log says that it was told to."""


class Liveness:
    """
    The addresses of the variables that show whether a kernel lives.

    :param kernel: Attached, and healthy.
    :raises UnsupportedError: If it does not have them where they are expected.
    """

    def __init__(self, kernel: Kernel) -> None:
        if kernel.problem is not None:
            raise UnsupportedError(kernel.problem)
        prog = kernel.prog
        try:
            resolve = resolver(kernel)
            self._panic_cpu = find_scalar(prog, resolve, "panic_cpu", 4)
            # The release and the version, which has the time of the build; not the node
            # name before them, which the guest sets.
            release = prog["init_uts_ns"].name.release
            size = 2 * sizeof(release)
            self._uts = Variable(resolve(release.address_of_().value_(), size), size)
        except ABSENT as error:
            raise UnsupportedError(
                f"cannot find the kernel's panic state: {error}"
            ) from error
        self._tainted = optional(lambda: find_scalar(prog, resolve, "tainted_mask", 8))
        self._state = optional(lambda: find_scalar(prog, resolve, "system_state", 4))
        memory = kernel.recorder.memory
        try:
            self._log: LogTail | None = LogTail(kernel.vmcoreinfo, memory)
        except (FormatError, NotCapturedError):
            self._log = None
        self._halt = _constant(prog, "SYSTEM_HALT", _SYSTEM_HALT)
        self._suspend = _constant(prog, "SYSTEM_SUSPEND", _SYSTEM_SUSPEND)
        self._identity = self._uts.read(memory)
        self._has_booted = False
        self._end: OrderlyEnd | None = None
        self._end_head: int | None = None
        """Up to which head of the log it was looked for."""

    def read(self, memory: Memory) -> KernelState:
        """
        Read the state of the kernel.

        :raises NotCapturedError: If the memory cannot be read any more.
        """
        same = self._uts.read(memory) == self._identity
        state = self._state.number(memory) if self._state else None
        if state is not None and state < self._halt - 1 and self._has_booted:
            same = False  # A reset has loaded the kernel's image once more.
        if same and state == self._halt - 1:
            self._has_booted = True
        tainted = self._tainted.number(memory) if self._tainted else 0
        leaving = same and state is not None and self._halt <= state < self._suspend
        if leaving or (same and state is None):
            self._end = self._read_end(memory)
        elif same:
            self._end = None
        return KernelState(
            same=same,
            panicked=same and self._panic_cpu.number(memory) != _NO_CPU,
            oopsed=same and bool(tainted & _TAINT_DIE),
            booted=same and state in (None, self._halt - 1),
            leaving=leaving or (same and self._end is not None),
            end=self._end if same else None,
        )

    def log_head(self, memory: Memory) -> int:
        """Read a number that changes with each message that the kernel logs."""
        return self._log.head(memory) if self._log is not None else 0

    def accept_name(self, memory: Memory) -> None:
        """Take the name and version in memory for the kernel's, whatever they are."""
        self._identity = self._uts.read(memory)

    def _read_end(self, memory: Memory) -> OrderlyEnd | None:
        if self._log is None:
            return None
        with suppress(FormatError, NotCapturedError):
            head = self._log.head(memory)
            if head != self._end_head:
                # What went wrong may be said long before.
                log = self._log.read_last(memory, _LAST_WORDS)
                self._end = find_orderly_end(log.records)
                self._end_head = None if log.unfinished else head
        return self._end


def _constant(prog: Program, name: str, default: int) -> int:
    value: int | None = optional(lambda: prog.constant(name).value_())
    return default if value is None else value
