# SPDX-License-Identifier: GPL-2.0-or-later
"""
Kernel memory that is mapped linearly: the direct map, and the kernel's image.

drgn walks the page table for every read, which takes four or five more reads. In
memory that is mapped linearly, one walk for each page is enough: it shows whether the
page is mapped, and records the page tables that other debuggers need.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from drgn import FaultError, Program

from kmemdump.arch.architecture import Arch, arch_from_elf
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import Alias, round_down
from kmemdump.memory.recorder import Recorder
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["add_linear_maps", "direct_map", "image_end"]

_MAX_IMAGE = 1 << 30


def direct_map(prog: Program, arch: Arch, info: VmcoreInfo) -> Alias | None:
    """Return the direct map, if the kernel says where it is."""

    def variable(name: str) -> int | None:
        try:
            value: int = prog.read_u64(prog.symbol(name).address)
        except (LookupError, FaultError):
            return None
        return value

    return arch.direct_map(info, variable)


def add_linear_maps(
    prog: Program, walker: Program, machine: int, info: VmcoreInfo, recorder: Recorder
) -> None:
    """
    Let *prog* read linearly mapped memory with one page table walk for each page.

    Where the linear maps are not known, drgn walks the page table as before.

    :param prog: A program that has symbols.
    :param walker: A program on the same memory that walks the page table.
    :param recorder: Reads, and records, the physical memory.
    """
    arch = arch_from_elf(machine)
    end = max((item.end for item in recorder.memory.ranges), default=0)
    direct = direct_map(prog, arch, info)
    maps = []
    if direct is not None:
        maps.append((direct, min(direct.size, end - direct.physical)))
    image = arch.image(info)
    maps.append((image, min(image_end(prog) - image.virtual, _MAX_IMAGE)))
    for alias, size in maps:
        whole = round_down(size, PAGE_SIZE)
        if whole > 0 and (alias.virtual | alias.physical) % PAGE_SIZE == 0:
            read = _reader(walker, recorder, alias.virtual - alias.physical)
            prog.add_memory_segment(alias.virtual, whole, read, False)


def image_end(prog: Program) -> int:
    """Return the virtual address where the kernel's image ends; 0 if unknown."""
    # With a vmlinux, drgn knows the end. It does not relocate _end if that symbol is in
    # no section (aarch64).
    try:
        ranges = prog.main_module().address_ranges
    except LookupError:
        ranges = None
    if ranges:
        return max(int(end) for _, end in ranges)
    try:
        return int(prog.symbol("_end").address)
    except LookupError:
        return 0


def _reader(
    walker: Program, recorder: Recorder, shift: int
) -> Callable[[int, int, int, bool], bytes]:
    read_physical = recorder.read

    recall = recorder.recall

    def walk(address: int) -> None:
        walker.read(address, 1)
        recorder.unread(address - shift)  # The walk is wanted, and not the byte.

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        page = address // PAGE_SIZE
        if not recall(page):
            recorder.memo(page, partial(walk, address))
        for number in range(page + 1, (address + count - 1) // PAGE_SIZE + 1):
            if not recall(number):
                recorder.memo(number, partial(walk, number * PAGE_SIZE))
        return read_physical(address - shift, count, 0, True)

    return read
