# SPDX-License-Identifier: GPL-2.0-or-later
"""
A page of 2 MiB of this machine, which a crash kernel finds.

A file of one page in hugetlbfs is memory that is contiguous, is neither swapped nor
compacted (Linux isolate_migratepages_block() leaves hugetlb pages alone), stays until
the file is removed, whatever becomes of the process, and needs neither a module nor a
boot parameter. The kernel may still move it if the memory is unplugged, so the address
is looked up before each write.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from contextlib import ExitStack, suppress
from pathlib import Path

from kmemdump.errors import TargetError, UnsupportedError
from kmemdump.files import is_own
from kmemdump.memory.mapped import MappedMemory
from kmemdump.memory.ranges import Extent, Range
from kmemdump.proc.mounts import read_mounts

__all__ = ["HugePage", "open_huge_page"]

_SIZE = 2 << 20
_NAME = "kmemdump.list"
_COUNT = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
_ENTRY = struct.Struct("<Q")
_PRESENT = 1 << 63
_FRAME = (1 << 55) - 1


class HugePage:
    """
    A huge page, as memory that can be written at its physical address.

    :param path: Its file; made if it does not exist.
    :raises TargetError: If there is no such page.
    """

    def __init__(self, path: Path, root: Path = Path("/")) -> None:
        self.path = path
        with ExitStack() as stack:
            fd = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            stack.callback(os.close, fd)
            if not is_own(os.fstat(fd)):
                raise TargetError(f"{path}: is not a file of this user's")
            os.ftruncate(fd, _SIZE)
            self._page = _map(fd, root)
            stack.callback(self._page.close)
            # The kernel asks who opened it, and not who reads it.
            self._frames = os.open(
                root / "proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC
            )
            stack.callback(os.close, self._frames)
            self.range = Range(self._find_address(), _SIZE)
            self._memory = MappedMemory(
                fd, [Extent(self.range.start, _SIZE, 0)], str(path)
            )
            stack.pop_all()
        os.close(fd)

    @property
    def ranges(self) -> list[Range]:
        """Where it is in physical memory."""
        return [self.range]

    def read(self, address: int, size: int) -> bytes:
        """
        Read it.

        :raises NotCapturedError: If any of the bytes are elsewhere.
        """
        return self._memory.read(address, size)

    def write(self, address: int, data: bytes) -> None:
        """
        Write it, as `MappedMemory.write` does.

        :raises TargetError: If it has moved.
        """
        found = self._find_address()
        if found != self.range.start:
            raise TargetError(
                f"{self.path}: its page has moved from {self.range.start:#x} to "
                f"{found:#x}\nmark again"
            )
        self._memory.write(address, data)

    def close(self) -> None:
        """Close it; the file and its memory stay."""
        self._memory.close()
        self._page.close()
        os.close(self._frames)

    def _find_address(self) -> int:
        """Return its physical address: Documentation/admin-guide/mm/pagemap.rst."""
        holder = ctypes.c_char.from_buffer(self._page)
        virtual = ctypes.addressof(holder)
        del holder  # Or the page cannot be closed.
        size = os.sysconf("SC_PAGE_SIZE")
        entry = os.pread(self._frames, _ENTRY.size, virtual // size * _ENTRY.size)
        (value,) = _ENTRY.unpack(entry)
        frame = value & _FRAME
        if not value & _PRESENT or not frame:
            raise TargetError(
                f"{self.path}: its physical address cannot be read, which needs "
                "CAP_SYS_ADMIN\nrun it with sudo"
            )
        return int(frame * size)


def open_huge_page(root: Path = Path("/")) -> HugePage:
    """
    Open the page for the list, and make it if it is not there.

    :param root: The folder with ``proc``, ``run`` and ``sys``.
    :raises UnsupportedError: If the machine has no free memory of that size, or no
        hugetlbfs.
    """
    path = _find_folder(root) / _NAME
    try:
        return HugePage(path, root)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise TargetError(f"{path}: {error.strerror}") from error
        raise UnsupportedError(
            f"{path}: there is no free huge page of 2 MiB\nhave the kernel set one "
            "aside when it boots: hugepages=1 on its command line (with "
            "default_hugepagesz=2M where that is not the default)"
        ) from error


def _map(fd: int, root: Path) -> mmap.mmap:
    """Map the page, which the kernel then has to find."""
    try:
        page = mmap.mmap(fd, _SIZE)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        _ask_for_one(root / _COUNT)
        page = mmap.mmap(fd, _SIZE)
    page[0] = page[0]  # Mapping reserves it; this makes it present.
    return page


def _ask_for_one(path: Path) -> None:
    """Have the kernel set one more page aside, if it has the memory."""
    with suppress(OSError, ValueError):
        path.write_text(f"{int(path.read_text()) + 1}\n")


def _find_folder(root: Path) -> Path:
    """Return where a hugetlbfs of 2 MiB is mounted; systemd mounts one."""
    for mount in read_mounts(root):
        if mount.kind == "hugetlbfs" and "pagesize=2M" in mount.options:
            return Path(mount.place)
    raise UnsupportedError(
        "no hugetlbfs with pages of 2 MiB is mounted, expected one for the list\n"
        "mount -t hugetlbfs -o pagesize=2M,mode=0700 none /dev/hugepages"
    )
