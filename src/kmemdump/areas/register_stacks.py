# SPDX-License-Identifier: GPL-2.0-or-later
"""
The stacks that the CPUs' registers lead to.

Neither symbols nor types are needed for that. The kernel's structures lead to the same
stacks if they are known, and are not damaged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from drgn import FaultError, Program

from kmemdump.arch.architecture import Arch, arch_from_program
from kmemdump.kernel.tasks import register_values
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import ADDRESS_SPACE, Range, round_down
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["stacks_in_registers"]

_STACK = 16 << 10
"""THREAD_SIZE, without KASAN and with pages up to that size; stacks are aligned."""
_MAX_STACKS = 4
"""On one CPU: an exception, an NMI or interrupt, and the task."""
_MAX_FRAMES = 200
_LAST = struct.Struct("<QQ")
_FRAME = struct.Struct("<QQ")


def stacks_in_registers(prog: Program) -> None:
    """The stacks to which each CPU's stack pointer and frame pointer lead."""
    arch = arch_from_program(prog)
    info = VmcoreInfo.parse(prog["VMCOREINFO"].string_(), "VMCOREINFO")
    size = max(_STACK, info.page_size)
    stacks: list[Range] = []
    for values in register_values(prog):
        found: list[Range] = []
        stack_pointer, frame_pointer = (values[name] for name in arch.stack_registers)
        for pointer in (stack_pointer, *_frame_pointers(prog, arch, frame_pointer)):
            _read_stacks(prog, arch, pointer, size, found)
        stacks += found
    # A core image has the registers in another order, those of online CPUs first.
    for item in sorted(stacks, key=lambda item: item.start):
        print(item)


def _read_stacks(
    prog: Program, arch: Arch, pointer: int, size: int, found: list[Range]
) -> None:
    """Read the stack at an address, and those that were in use before it."""
    pointers = [arch.untagged(pointer)]
    while len(found) < _MAX_STACKS:
        new = (
            _read_stack(prog, it, size) for it in pointers if _is_new(arch, it, found)
        )
        stack = next((item for item in new if item is not None), None)
        if stack is None:
            return
        found.append(stack)
        # The last word of an interrupt stack of x86-64 is the stack pointer before it
        # (asm/irq_stack.h). If the CPU itself changed the stack, for an exception, that
        # is the word before. Other stacks may have any values there.
        words = _LAST.unpack(prog.read(stack.end - _LAST.size, _LAST.size))
        pointers = [arch.untagged(word) for word in reversed(words)]


def _is_new(arch: Arch, pointer: int, found: list[Range]) -> bool:
    if not arch.is_kernel_address(pointer) or pointer % 8:
        return False  # In user space, or no pointer.
    return not any(item.start <= pointer < item.end for item in found)


def _read_stack(prog: Program, pointer: int, size: int) -> Range | None:
    """Read the stack at an address; return its mapped part, if it has one."""
    start = round_down(pointer, PAGE_SIZE)
    if not _is_mapped(prog, start):
        return None
    end = start + PAGE_SIZE
    # Below the pointer are remains of earlier calls, which debuggers read with it.
    while start % size and _is_mapped(prog, start - PAGE_SIZE):
        start -= PAGE_SIZE
    # A guard page follows a stack, unless it is not allocated by vmalloc; KASAN doubles
    # its size.
    limit = min(round_down(pointer, size) + 2 * size, ADDRESS_SPACE)
    while end < limit and _is_mapped(prog, end):
        end += PAGE_SIZE
    return Range(start, end - start)


def _is_mapped(prog: Program, page: int) -> bool:
    try:
        prog.read(page, PAGE_SIZE)
    except FaultError:
        return False
    return True


def _frame_pointers(prog: Program, arch: Arch, pointer: int) -> Iterator[int]:
    """Yield the addresses of frame records: the caller's one, and a return address."""
    seen: set[int] = set()
    while len(seen) < _MAX_FRAMES:
        pointer = arch.untagged(pointer)
        if not arch.is_kernel_address(pointer) or pointer % 8 or pointer in seen:
            return
        seen.add(pointer)
        try:
            following, back = _FRAME.unpack(prog.read(pointer, _FRAME.size))
        except FaultError:
            return
        if not arch.is_kernel_address(back):
            return  # The register has another use: no frame record is there.
        yield pointer
        pointer = following
