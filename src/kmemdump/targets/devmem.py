# SPDX-License-Identifier: GPL-2.0-or-later
"""
This machine's reserved memory, written through /dev/mem.

Only reserved memory is mapped and written (see :mod:`kmemdump.targets.memory_use`):
memory that the kernel itself, or a device, uses is refused before anything is mapped,
and before each write, since memory can be added while a machine runs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from kmemdump.errors import NotCapturedError, TargetError, UnsupportedError
from kmemdump.memory.mapped import MappedMemory
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Extent, Range, align
from kmemdump.targets.memory_use import MemoryUse

__all__ = ["ReservedMemory", "open_reserved"]

_NAME = "/dev/mem"


def open_reserved(ranges: Iterable[Range], root: Path = Path("/")) -> MappedMemory:
    """
    Map reserved memory of this machine for reading and writing.

    :param ranges: Physical memory. Its pages are mapped and must be reserved; nothing
        else of these can be read or written.
    :param root: The folder with ``dev``, ``proc`` and ``sys``.
    :raises UnsupportedError: If it is not reserved, or the kernel does not allow it.
    """
    ranges = list(ranges)
    pages = align(ranges, os.sysconf("SC_PAGE_SIZE"))
    use = MemoryUse(root)
    try:
        use.check(pages)
        return _map(root, ranges, pages, use)
    except BaseException:
        use.close()
        raise


class _CheckedMemory(MappedMemory):
    """
    Writes to memory that is still reserved.

    :param use: Closed together with this.
    """

    def __init__(
        self, fd: int, ranges: Sequence[Range], pages: Sequence[Range], use: MemoryUse
    ) -> None:
        self._pages = pages
        self._use = use
        extents = [Extent(it.start, it.size, it.start) for it in pages]
        super().__init__(fd, extents, _NAME, ranges)

    def write(self, address: int, data: bytes) -> None:
        """
        Write memory, as `MappedMemory.write` does.

        :raises UnsupportedError: If it has come into use since.
        """
        self._use.check(self._pages)
        super().write(address, data)

    def close(self) -> None:
        super().close()
        self._use.close()


def _map(
    root: Path, ranges: Sequence[Range], pages: Sequence[Range], use: MemoryUse
) -> MappedMemory:
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
        return _CheckedMemory(fd, ranges, pages, use)
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
        pages = align([Range(address, size)], os.sysconf("SC_PAGE_SIZE"))
        self._windows.append(open_reserved(pages))
        return self._windows[-1].read(address, size)

    def close(self) -> None:
        for window in self._windows:
            window.close()
        self._windows = []
