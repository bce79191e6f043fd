# SPDX-License-Identifier: GPL-2.0-or-later
"""
Kernel memory by its page table, with one walk for each page.

drgn walks the page table for every read, which takes four or five more reads. Stacks
are read a word at a time, and lie in vmalloc's area, which is not linear.
"""

from __future__ import annotations

from functools import partial

from drgn import FaultError, Program

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.arch.pagetable import translate
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import ADDRESS_SPACE
from kmemdump.memory.recorder import Recorder
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["add_mapped_memory"]


def add_mapped_memory(
    prog: Program, machine: int, info: VmcoreInfo, recorder: Recorder
) -> None:
    """
    Let *prog* read the kernel's half of virtual memory with one walk for each page.

    If *info* does not lead to the page table, drgn walks it as before, if it can.

    :param recorder: Reads, and records, the physical memory and the page table.
    """
    try:
        table = arch_from_elf(machine).page_table(info)
    except (FormatError, NotCapturedError):
        return
    read_physical = recorder.read

    def read_entry(address: int, size: int) -> bytes:
        return read_physical(address, size, 0, True)

    def find(page: int) -> int:
        found = translate(table, read_entry, page * PAGE_SIZE)
        if found is None:
            problem = _unmapped(info, page * PAGE_SIZE)
            raise FaultError(problem, page * PAGE_SIZE)
        return found

    def read(address: int, count: int, _offset: int, _physical: bool) -> bytes:
        page, low = divmod(address, PAGE_SIZE)
        if low + count <= PAGE_SIZE:
            start = recorder.memo(~page, partial(find, page))
            return read_physical(start + low, count, 0, True)
        pieces = []
        while count > 0:
            size = min(count, PAGE_SIZE - address % PAGE_SIZE)
            pieces.append(read(address, size, 0, False))
            address, count = address + size, count - size
        return b"".join(pieces)

    start = table.base + (table.first << table.shifts[0])
    prog.add_memory_segment(start, ADDRESS_SPACE - start, read, False)


def _unmapped(info: VmcoreInfo, address: int) -> str:
    """Say what an address may be: one of the image as it was linked, for example."""
    try:
        start = info.symbol("_stext")
        linked = start - info.kernel_offset
    except (FormatError, NotCapturedError):
        return "address is not mapped"
    if linked <= address < start:
        return f"address is not mapped (KASLR: this kernel's code begins at {start:#x})"
    return "address is not mapped"
