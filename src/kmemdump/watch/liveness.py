# SPDX-License-Identifier: GPL-2.0-or-later
"""Read the kernel variables that show whether it has panicked or is going down."""

from __future__ import annotations

from dataclasses import dataclass

from drgn import Program, sizeof

from kmemdump.errors import UnsupportedError
from kmemdump.kernel.attach import Kernel
from kmemdump.kernel.optional import ABSENT, optional
from kmemdump.memory.physical import Memory
from kmemdump.watch.kernel_variables import (
    Variable,
    find_member,
    find_scalar,
    resolver,
)

__all__ = ["KernelState", "Liveness"]

_NO_CPU = 0xFFFFFFFF  # PANIC_CPU_INVALID, Linux include/linux/panic.h
_TAINT_DIE = 1 << 7  # Linux include/linux/panic.h
_SYSTEM_HALT = 4
_SYSTEM_SUSPEND = 7


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
    """Whether it is going down in an orderly way: to reboot, power off or halt."""


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
        # Since Linux kernel commit 896fbe20b4e2 ("printk: use the lockless
        # ringbuffer") (in v5.10).
        self._log = optional(
            lambda: find_member(resolve, prog["prb"].desc_ring.head_id)
        )
        self._halt = _constant(prog, "SYSTEM_HALT", _SYSTEM_HALT)
        self._suspend = _constant(prog, "SYSTEM_SUSPEND", _SYSTEM_SUSPEND)
        self._identity = self._uts.read(kernel.recorder.memory)

    def read(self, memory: Memory) -> KernelState:
        """
        Read the state of the kernel.

        :raises NotCapturedError: If the memory cannot be read any more.
        """
        same = self._uts.read(memory) == self._identity
        state = self._state.number(memory) if self._state else None
        tainted = self._tainted.number(memory) if self._tainted else 0
        return KernelState(
            same=same,
            panicked=same and self._panic_cpu.number(memory) != _NO_CPU,
            oopsed=same and bool(tainted & _TAINT_DIE),
            booted=same and state in (None, self._halt - 1),
            leaving=same and state is not None and self._halt <= state < self._suspend,
        )

    def log_head(self, memory: Memory) -> bytes:
        """Read something that changes with each message that the kernel logs."""
        return self._log.read(memory) if self._log else b""


def _constant(prog: Program, name: str, default: int) -> int:
    value: int | None = optional(lambda: prog.constant(name).value_())
    return default if value is None else value
