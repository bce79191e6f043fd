# SPDX-License-Identifier: GPL-2.0-or-later
"""
This machine's reserved memory, written through /dev/mem.

Only memory that /proc/iomem shows as reserved is mapped and written: memory that the
kernel itself, or a device, uses is refused before anything is mapped.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from kmemdump.errors import (
    FormatError,
    NotCapturedError,
    TargetError,
    UnsupportedError,
)
from kmemdump.formats.iomem import find_use, parse_iomem
from kmemdump.memory.mapped import MappedMemory
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Extent, Range, align

__all__ = ["ReservedMemory", "open_reserved"]

_NAME = "/dev/mem"


def open_reserved(ranges: Iterable[Range], root: Path = Path("/")) -> MappedMemory:
    """
    Map reserved memory of this machine for reading and writing.

    :param ranges: Physical memory; its pages are mapped whole.
    :param root: The folder with ``dev`` and ``proc``.
    :raises UnsupportedError: If it is not reserved, or the kernel does not allow it.
    """
    pages = align(ranges, os.sysconf("SC_PAGE_SIZE"))
    _check(pages, root / "proc/iomem")
    device = root / "dev/mem"
    try:
        # O_SYNC maps it uncached: firmware reads what is in memory (Linux
        # phys_mem_access_prot()).
        fd = os.open(device, os.O_RDWR | os.O_SYNC | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UnsupportedError(
            f"there is no {device} (CONFIG_DEVMEM is not set)\n"
            "mark this machine from outside (qmp:SOCKET), or in the kernel (kmod/)"
        ) from None
    except PermissionError as error:
        # The kernel checks CAP_SYS_RAWIO and lockdown when it is opened.
        raise UnsupportedError(
            f"{device}: {error.strerror}: it needs root with CAP_SYS_RAWIO, and a "
            "kernel that is not locked down\nrun it with sudo; "
            "cat /sys/kernel/security/lockdown shows whether it is"
        ) from error
    try:
        return MappedMemory(
            fd, [Extent(it.start, it.size, it.start) for it in pages], _NAME
        )
    except TargetError as error:
        raise UnsupportedError(
            f"{error}\nthe kernel lets /dev/mem see reserved memory only "
            "(CONFIG_STRICT_DEVMEM): a device tree's node needs no-map"
        ) from error
    finally:
        os.close(fd)


class ReservedMemory:
    """
    This machine's RAM and reserved memory, which is mapped when it is read.

    :param ram: Belongs to the caller.
    """

    def __init__(self, ram: Memory) -> None:
        self.ranges = ram.ranges
        self._ram = ram
        self._windows: list[MappedMemory] = []

    def read(self, address: int, size: int) -> bytes:
        for memory in (self._ram, *self._windows):
            with contextlib.suppress(NotCapturedError):
                return memory.read(address, size)
        self._windows.append(open_reserved([Range(address, size)]))
        return self._windows[-1].read(address, size)

    def close(self) -> None:
        for window in self._windows:
            window.close()
        self._windows = []


def _check(pages: Iterable[Range], iomem: Path) -> None:
    try:
        resources = parse_iomem(iomem.read_text(), str(iomem))
    except (OSError, FormatError) as error:
        raise UnsupportedError(
            f"cannot find what is reserved: {error}\nnothing was written"
        ) from error
    for item in pages:
        use = find_use(resources, item)
        if use is not None:
            raise UnsupportedError(
                f"{item} is in use: {iomem} says {use!r}, expected reserved memory\n"
                "keep it from the kernel with a no-map node below /reserved-memory in "
                "the device tree, or with memmap=SIZE$ADDRESS on the command line"
            )
