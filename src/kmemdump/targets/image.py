# SPDX-License-Identifier: GPL-2.0-or-later
"""
A raw RAM image: bytes of physical memory and nothing else.

Such a file does not give the physical addresses of its bytes. A PC with much RAM has a
gap below 4 GiB for devices, so that offset and address differ above it. The kernel in
the image knows the addresses of RAM, which give the memory map.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import pairwise

from kmemdump.arch.architecture import arch_from_info
from kmemdump.errors import (
    FormatError,
    KmemdumpError,
    NotCapturedError,
    TargetError,
    UsageError,
)
from kmemdump.files import OpenFile
from kmemdump.kernel_search.contents import FoundKernel, prove, search_kernels
from kmemdump.kernel_search.finder import find_kernel, is_disproven
from kmemdump.kernel_search.notes import is_present, scan_vmcoreinfo
from kmemdump.memory.physical import FileMemory, Memory
from kmemdump.memory.ranges import ADDRESS_SPACE, Extent
from kmemdump.targets.file import FileTarget
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["open_image", "parse_memory_map"]

_MAX_MAP = 1024
_EXTENT = re.compile(
    r"(0x[0-9a-f]{1,16}|[0-9]{1,20})"
    r"(?:-(0x[0-9a-f]{1,16}|[0-9]{1,20}))?"
    r"(?:@(0x[0-9a-f]{1,16}|[0-9]{1,20}))?",
    re.IGNORECASE,
)


def parse_memory_map(text: str, size: int) -> list[Extent]:
    """
    Parse the memory map that a user gives for a RAM image.

    It is a list of ``FIRST-LAST@OFFSET`` with commas between them: physical addresses
    as /proc/iomem shows them, LAST included, and the offset in the file. Without
    ``@OFFSET``, a range follows the one before it in the file; without ``-LAST``, it
    extends to the end of the file.

    >>> parse_memory_map("0-0x7fffffff,0x100000000", 3 << 30)
    [Extent(address=0, size=2147483648, offset=0),
     Extent(address=4294967296, size=1073741824, offset=2147483648)]

    :param size: Size of the file in bytes.
    :raises UsageError: If it is malformed, or does not fit the file.
    """
    extents: list[Extent] = []
    offset = 0
    for part in map(str.strip, text.split(",")):
        match = _EXTENT.fullmatch(part)
        if match is None:
            raise UsageError(
                f"memory map: {part[:60]!r}, expected FIRST-LAST@OFFSET, for "
                "example 0-0x7fffffff@0,0x100000000-0x17fffffff@0x80000000"
            )
        first = _number(match[1])
        if match[3]:
            offset = _number(match[3])
        count = _number(match[2]) - first + 1 if match[2] else size - offset
        if count <= 0 or offset + count > size or first + count > ADDRESS_SPACE:
            raise UsageError(
                f"memory map: {part} is {count:#x} bytes at offset "
                f"{offset:#x}, but the file has {size:#x} bytes"
            )
        extents.append(Extent(first, count, offset))
        offset += count
        if len(extents) > _MAX_MAP:
            raise UsageError(f"memory map: more than {_MAX_MAP} ranges")
    extents.sort()
    for left, right in pairwise(extents):
        if left.address + left.size > right.address:
            raise UsageError(f"memory map: two ranges at {right.address:#x}")
    return extents


def _number(text: str) -> int:
    return int(text, 16 if text[:2].lower() == "0x" else 10)


def open_image(
    file: OpenFile,
    memory_map: str | None = None,
    vmcoreinfo: VmcoreInfo | None = None,
) -> FileTarget:
    """
    Open a raw RAM image.

    :param memory_map: See :func:`parse_memory_map`; found if not given.
    :raises TargetError: If there is no kernel, or its memory map is not found.
    """
    if memory_map is not None:
        extents = parse_memory_map(memory_map, file.size)
        memory = FileMemory(file.detach(), extents, file.name)
        try:
            info = vmcoreinfo or find_kernel(memory, file.name)
            if info is None:
                raise _no_kernel(file)
            return FileTarget(file.name, arch_from_info(info).machine, memory, (), info)
        except BaseException:
            memory.close()
            raise
    # By offset in the file: a note is contiguous there, too.
    memory = FileMemory(os.dup(file.fd), [Extent(0, file.size, 0)], file.name)
    try:
        if vmcoreinfo is not None:
            target = _find([vmcoreinfo], file)
        else:
            notes = list(dict.fromkeys(scan_vmcoreinfo(memory, file.name)))
            target = _find_noted(notes, file, memory)
    finally:
        memory.close()
    file.close()
    return target


def _find_noted(
    notes: Sequence[VmcoreInfo], file: OpenFile, memory: Memory
) -> FileTarget:
    """
    Find the kernel of a note; or else one by its contents.

    :param memory: The file, by offset.
    :raises TargetError: If there is neither.
    """
    noted: FileTarget | None = None
    problem: KmemdumpError = _no_kernel(file)
    if notes:
        try:
            noted = _find(notes, file)
            if not is_disproven(noted.vmcoreinfo(), noted.memory):
                return noted
        except (FormatError, TargetError) as error:
            problem = error
    found = _find_by_contents(memory, file)
    if found is not None:
        if noted is not None:
            noted.close()
        return found
    if noted is None:
        raise problem
    return noted


def _find_by_contents(memory: Memory, file: OpenFile) -> FileTarget | None:
    """
    Find the one kernel whose page table maps its image to where it is in the file.

    :param memory: The file, by offset.
    """
    found: list[FileTarget] = []
    try:
        for kernel in search_kernels(memory, file.name):
            target = _prove(kernel, file)
            if target is not None:
                found.append(target)
        return found.pop() if len(found) == 1 else None
    finally:
        for target in found:
            target.close()


def _prove(kernel: FoundKernel, file: OpenFile) -> FileTarget | None:
    """Find the memory map with which a kernel is proven."""
    for info in kernel.candidates():
        virtual = kernel.image.symbol("_stext")
        offset = kernel.image.place(virtual)
        # What the kernel's own variables say, whatever the map.
        start = kernel.arch.image_address(info, virtual) - offset
        maps = list(kernel.arch.likely_memory_maps(file.size))
        if start >= 0 and start + file.size <= ADDRESS_SPACE:
            maps.append([Extent(start, file.size, 0)])
        for extents in maps:
            memory = FileMemory(os.dup(file.fd), extents, file.name)
            try:
                if prove(kernel, info, memory):
                    whole = kernel.describe(info)
                    if kernel.arch.is_memory_map(whole, memory):
                        machine = kernel.arch.machine
                        return FileTarget(file.name, machine, memory, (), whole)
            except (FormatError, NotCapturedError):
                pass
            memory.close()
    return None


def _no_kernel(file: OpenFile) -> TargetError:
    return TargetError(
        f"{file.name}: not a known dump format, and no VMCOREINFO found in it as a raw "
        f"RAM image of {file.size:#x} bytes, nor a kernel by its contents\n"
        "give it with --vmcoreinfo FILE if the memory is not complete"
    )


def _find(notes: Sequence[VmcoreInfo], file: OpenFile) -> FileTarget:
    """
    Find the memory map that puts a kernel at the address in its VMCOREINFO.

    The kernel's own map of all RAM must end where the memory map does, so a wrong gap
    is noticed.

    :raises TargetError: If there is no such map, or several kernels have one.
    :raises FormatError: If no map fits, and a note has an unknown architecture.
    """
    found: list[FileTarget] = []
    unknown: FormatError | None = None
    try:
        for info in notes:
            try:
                arch = arch_from_info(info)
            except FormatError as error:
                unknown = unknown or error  # Any process can write such text.
                continue
            for extents in arch.likely_memory_maps(file.size):
                memory = FileMemory(os.dup(file.fd), extents, file.name)
                if is_present(info, memory) and arch.is_memory_map(info, memory):
                    found.append(FileTarget(file.name, arch.machine, memory, (), info))
                    break
                memory.close()
        if len(found) == 1:
            return found.pop()
        if unknown is not None and not found:
            raise unknown
        releases = ", ".join(info.osrelease for info in notes[:5])
        if found:
            problem = f"{len(found)} kernels in it ({releases})"
        else:
            problem = f"the memory map is not known (kernel {releases})"
        raise TargetError(
            f"{file.name}: raw RAM image of {file.size:#x} bytes: {problem}\n"
            "give --memory-map FIRST-LAST@OFFSET,… and --vmcoreinfo FILE"
        )
    finally:
        for target in found:
            target.close()
