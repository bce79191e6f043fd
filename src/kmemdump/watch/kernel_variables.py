# SPDX-License-Identifier: GPL-2.0-or-later
"""
Variables of a kernel in physical memory, found once, while the kernel is healthy.

Afterwards a few small reads of guest memory are enough; they need neither drgn, nor a
cooperating guest, nor a responding QEMU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drgn import Object, Program, sizeof

from kmemdump.arch.architecture import arch_from_info
from kmemdump.arch.pagetable import translate
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.kernel.attach import Kernel
from kmemdump.memory.physical import Memory

__all__ = ["Resolve", "Variable", "find_member", "find_scalar", "resolver"]

_MAX_MEMBER = 512  # Most bytes read of a member.

Resolve = Callable[[int, int], int]
"""
Turns a virtual address and a size into a physical address. Raises :exc:`ValueError` if
they are not mapped to contiguous memory.
"""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable in physical memory."""

    address: int
    size: int

    def read(self, memory: Memory) -> bytes:
        return memory.read(self.address, self.size)

    def number(self, memory: Memory) -> int:
        return int.from_bytes(self.read(memory), "little")


def resolver(kernel: Kernel) -> Resolve:
    """Return a function that finds the physical address of kernel memory."""
    info, read = kernel.vmcoreinfo, kernel.recorder.memory.read
    table = arch_from_info(info).page_table(info)

    def resolve(address: int, size: int) -> int:
        try:
            physical = translate(table, read, address)
            last = translate(table, read, address + size - 1)
        except (FormatError, NotCapturedError) as error:
            raise ValueError(str(error)) from error
        if physical is None or last != physical + size - 1:
            raise ValueError(f"{address:#x} is not mapped, or not contiguous")
        return physical

    return resolve


def find_scalar(prog: Program, resolve: Resolve, name: str, size: int) -> Variable:
    """Return the variable of a symbol."""
    return Variable(resolve(prog.symbol(name).address, size), size)


def find_member(resolve: Resolve, value: Object) -> Variable | None:
    """Return an object in memory as a variable."""
    size = min(sizeof(value), _MAX_MEMBER)
    address = value.address_
    return Variable(resolve(address, size), size) if address and size else None
