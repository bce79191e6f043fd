# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left of a dead kernel: its memory as it is now, or the last refresh's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from kmemdump.backends.vm import Dump
from kmemdump.errors import KmemdumpError
from kmemdump.formats.elf import NT_PRSTATUS, Note
from kmemdump.memory.physical import FileMemory, Memory
from kmemdump.memory.ranges import Extent, merge
from kmemdump.targets import Target
from kmemdump.targets.file import FileTarget
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["copied_memory", "dead_target", "left_of_kernel", "read_registers"]


def read_registers(target: Target) -> list[bytes]:
    """Return the NT_PRSTATUS of each CPU; none of a VM that was reset or is gone."""
    try:
        return target.registers()
    except KmemdumpError:
        return []  # Or QEMU does not answer.


def dead_target(
    marks: VmMarks, memory: Memory, registers: Sequence[bytes]
) -> FileTarget:
    """Return a dead kernel as a target; the caller closes its memory."""
    notes = [Note("CORE", NT_PRSTATUS, status) for status in registers]
    vm = marks.target
    return FileTarget(vm.name, vm.machine, memory, notes, marks.info)


@contextmanager
def copied_memory(copy: Dump) -> Iterator[FileMemory]:
    """Yield the regions of a copy, which may overlap, as memory."""
    fd = os.memfd_create("kmemdump-copy", os.MFD_CLOEXEC)
    try:
        for region, data in copy.contents:
            os.pwrite(fd, data, region.address)  # A sparse file, like the VM's memory.
    except BaseException:
        os.close(fd)
        raise
    ranges = merge(region.range for region, _ in copy.contents)
    extents = [Extent(item.start, item.size, item.start) for item in ranges]
    with closing(FileMemory(fd, extents, "the copy of the last refresh")) as memory:
        yield memory


@contextmanager
def left_of_kernel(marks: VmMarks) -> Iterator[FileTarget]:
    """Yield what a core image of the dead kernel is made of."""
    state = marks.read_kernel()
    if state is not None and state.same:
        # Only the memory of the VM is read, which its target closes.
        yield dead_target(marks, marks.target.memory, read_registers(marks.target))
        return
    with copied_memory(marks.copy) as memory:
        yield dead_target(marks, memory, marks.capture.kernel.registers)
