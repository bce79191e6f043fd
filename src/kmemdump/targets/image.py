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
from kmemdump.arch.vmcoreinfo_search import find_vmcoreinfo, is_present, scan_vmcoreinfo
from kmemdump.errors import TargetError, UsageError
from kmemdump.files import OpenFile
from kmemdump.memory.physical import FileMemory
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
            info = vmcoreinfo or find_vmcoreinfo(memory, file.name)
            if info is None:
                raise _no_kernel(file)
            return FileTarget(file.name, arch_from_info(info).machine, memory, (), info)
        except BaseException:
            memory.close()
            raise
    # By offset in the file: a note is contiguous there, too.
    memory = FileMemory(os.dup(file.fd), [Extent(0, file.size, 0)], file.name)
    try:
        found = [vmcoreinfo] if vmcoreinfo else scan_vmcoreinfo(memory, file.name)
        notes = list(dict.fromkeys(found))
    finally:
        memory.close()
    if not notes:
        raise _no_kernel(file)
    target = _find(notes, file)
    file.close()
    return target


def _no_kernel(file: OpenFile) -> TargetError:
    return TargetError(
        f"{file.name}: not a known dump format, and no VMCOREINFO found in it as a raw "
        f"RAM image of {file.size:#x} bytes\n"
        "give it with --vmcoreinfo FILE if the memory is not complete"
    )


def _find(notes: Sequence[VmcoreInfo], file: OpenFile) -> FileTarget:
    """
    Find the memory map that puts a kernel at the address in its VMCOREINFO.

    The kernel's own map of all RAM must end where the memory map does, so a wrong gap
    is noticed.

    :raises TargetError: If there is no such map, or several kernels have one.
    """
    found: list[FileTarget] = []
    try:
        for info in notes:
            arch = arch_from_info(info)
            for extents in arch.likely_memory_maps(file.size):
                memory = FileMemory(os.dup(file.fd), extents, file.name)
                if is_present(info, memory) and arch.is_memory_map(info, memory):
                    found.append(FileTarget(file.name, arch.machine, memory, (), info))
                    break
                memory.close()
        if len(found) == 1:
            return found.pop()
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
