# SPDX-License-Identifier: GPL-2.0-or-later
"""
What this machine's physical memory is used for, as /proc/iomem shows it at any time.

The kernel hides addresses from a file that was opened without CAP_SYS_ADMIN (r_show()
of kernel/resource.c asks for the capabilities of its opener). So it is opened once, and
the capability can be dropped. A service needs none at all: its manager opens the file,
and hands it over as standard input.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from kmemdump.errors import FormatError, KmemdumpError, UnsupportedError
from kmemdump.firmware.device_tree import read_tree
from kmemdump.formats.fdt import all_reserved_ranges
from kmemdump.formats.iomem import find_unlisted, find_use, parse_iomem
from kmemdump.memory.ranges import Range, subtract

__all__ = ["MemoryUse"]

_MOST = 8 << 20
"""Bytes of /proc/iomem; parse_iomem() takes fewer lines."""
_PIECE = 1 << 16
_STDIN = 0
_TREE = "sys/firmware/fdt"


class MemoryUse:
    """
    The uses of physical memory, now.

    :param root: The folder with ``proc`` and ``sys``.
    :raises UnsupportedError: If it cannot be found out.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._path = root / "proc/iomem"
        self._tree = root / _TREE
        self._fd = -1
        self._good: tuple[bytes, list[Range]] | None = None
        try:
            self._fd = _open(self._path)
        except OSError as error:
            raise _unknown(error) from error

    def check(self, ranges: Iterable[Range]) -> None:
        """
        Check that memory is reserved; if nothing has changed, this only reads the file.

        :raises UnsupportedError: If it is in use, or not known to be memory.
        """
        wanted = list(ranges)
        try:
            text = self._read()
            if (text, wanted) == self._good:
                return
            resources = parse_iomem(text.decode(errors="replace"), str(self._path))
        except (OSError, FormatError) as error:
            raise _unknown(error) from error
        for item in wanted:
            if (use := find_use(resources, item)) is not None:
                raise UnsupportedError(
                    f"{item} is in use: {self._path} says {use!r}, expected reserved "
                    "memory\nkeep it from the kernel with a no-map node below "
                    "/reserved-memory in the device tree, or with memmap=SIZE$ADDRESS "
                    "on the command line"
                )
            if unlisted := find_unlisted(resources, item):
                self._check_unlisted(unlisted)
        self._good = text, wanted

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _read(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        # The kernel gives a page at a time.
        while piece := os.pread(self._fd, _PIECE, size):
            pieces.append(piece)
            size += len(piece)
            if size > _MOST:
                raise FormatError(str(self._path), f"over {_MOST} bytes long")
        return b"".join(pieces)

    def _check_unlisted(self, ranges: list[Range]) -> None:
        """Some bootloaders take reserved memory out of the kernel's memory, too."""
        reserved: list[Range] = []
        if self._tree.exists():
            try:
                reserved = all_reserved_ranges(read_tree(self._tree))
            except KmemdumpError as error:
                raise _unknown(error) from error
        if left := subtract(ranges, reserved):
            raise UnsupportedError(
                f"{left[0]} is not known to be memory: neither {self._path} nor a "
                "device tree's /reserved-memory has it\ncheck its address"
            )


def _open(path: Path) -> int:
    if _is_given(path):
        return os.dup(_STDIN)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _is_given(path: Path) -> bool:
    try:
        given = os.fstat(_STDIN)
    except OSError:  # It is closed.
        return False
    # The inode is the same in all mounts of proc; their device is not.
    is_file = stat.S_ISREG(given.st_mode) and not given.st_size
    return is_file and given.st_ino == path.stat().st_ino


def _unknown(error: Exception) -> UnsupportedError:
    return UnsupportedError(
        f"cannot find what is reserved: {error}\nnothing was written"
    )
