# SPDX-License-Identifier: GPL-2.0-or-later
"""
The memory of a process that may be a guest's RAM, by its addresses in the process.

What the process shares with others (memfd, a file) is read from the file: reading it
through the process would allocate what the guest never used.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from kmemdump.errors import FormatError, NotCapturedError, TargetError
from kmemdump.formats.proc_maps import Mapping, parse_maps
from kmemdump.memory.ranges import Range, merge

__all__ = ["ProcessMemory", "open_process"]

_LEAST = 1 << 20
"""Bytes of the smallest memory that may be a guest's."""
_MAX_MAPS = 16 << 20
_MAX_FILES = 1 << 16


def open_process(pid: int) -> int:
    """
    Return a descriptor of a process's folder in /proc.

    Whatever is opened through it is of this process, even if its id belongs to another
    one later.

    :raises TargetError: If there is no such process.
    """
    try:
        return os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise TargetError(f"process {pid}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class _Piece:
    """A mapping, and where it is read."""

    mapping: Mapping
    fd: int
    shift: int
    """Offset in the file minus address in the process."""


class ProcessMemory:
    """
    Memory of a process: what it can write, in pieces of a MiB and more.

    :param pid: Of the process.
    :param folder: Its folder in /proc, see :func:`open_process`; stays the caller's.
    :raises TargetError: If the process's memory cannot be read.
    """

    def __init__(self, pid: int, folder: int) -> None:
        self.name = f"process {pid}"
        self._folder = folder
        self._mem = self._open("mem")
        self._files: dict[tuple[tuple[int, int], int], int] = {}
        """Descriptors of shared files, by device and inode."""
        self._pieces: Sequence[_Piece] = ()
        self._starts: list[int] = []
        self.ranges: Sequence[Range] = ()
        try:
            self.refresh()
        except BaseException:
            self.close()
            raise

    @property
    def starts(self) -> Sequence[int]:
        """Addresses at which mappings start."""
        return self._starts

    @property
    def outlives_process(self) -> bool:
        """Whether it stays when the process ends."""
        return False

    def refresh(self) -> bool:
        """
        Read again what the process has mapped; return whether that changed.

        :raises TargetError: If the process has ended.
        """
        found = _candidates(self._read_maps())
        if found == [piece.mapping for piece in self._pieces]:
            return False
        wanted = {_key(item) for item in found if item.shared and item.inode}
        for key in set(self._files) - wanted:
            os.close(self._files.pop(key))
        new = wanted - set(self._files)
        if new:
            self._files |= self._open_files(new)
        self._pieces = [self._piece(mapping) for mapping in found]
        self._starts = [item.start for item in found]
        self.ranges = _join(found)
        return True

    def read(self, address: int, size: int) -> bytes:
        parts: list[bytes] = []
        wanted = size
        while wanted > 0:
            i = bisect_right(self._starts, address) - 1
            piece = self._pieces[i] if i >= 0 else None
            if piece is None or address >= piece.mapping.end:
                raise NotCapturedError(f"{self.name} has nothing at {address:#x}")
            count = min(wanted, piece.mapping.end - address)
            try:
                part = os.pread(piece.fd, count, address + piece.shift)
            except (OSError, OverflowError) as error:
                raise NotCapturedError(
                    f"{self.name}: cannot read {address:#x}: {error}"
                ) from error
            if not part:
                raise NotCapturedError(f"{self.name} has ended, or lost {address:#x}")
            parts.append(part)
            address += len(part)
            wanted -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        for fd in self._files.values():
            os.close(fd)
        self._files = {}
        if self._mem >= 0:
            os.close(self._mem)
            self._mem = -1

    def _open(self, path: str) -> int:
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC
            return os.open(path, flags, dir_fd=self._folder)
        except OSError as error:
            raise TargetError(
                f"{self.name}: cannot read its memory: {error.strerror}\n"
                "run as root, or with CAP_SYS_PTRACE"
            ) from error

    def _read_maps(self) -> list[Mapping]:
        with open(self._open("maps"), "rb") as file:
            try:
                data = file.read(_MAX_MAPS + 1)
            except OSError as error:
                raise TargetError(f"{self.name}: {error.strerror}") from error
        if len(data) > _MAX_MAPS:
            raise FormatError(self.name, f"more than {_MAX_MAPS} bytes of mappings")
        return parse_maps(data.decode("utf-8", "replace"), f"maps of {self.name}")

    def _piece(self, mapping: Mapping) -> _Piece:
        fd = self._files.get(_key(mapping)) if mapping.shared else None
        if fd is None:
            return _Piece(mapping, self._mem, 0)
        return _Piece(mapping, fd, mapping.offset - mapping.start)

    def _open_files(
        self, wanted: set[tuple[tuple[int, int], int]]
    ) -> dict[tuple[tuple[int, int], int], int]:
        """Open shared files that the process has open, too, as far as possible."""
        found: dict[tuple[tuple[int, int], int], int] = {}
        try:
            folder = self._open("fd")
        except TargetError:
            return found
        try:
            for name in os.listdir(folder)[:_MAX_FILES]:
                try:
                    # Anything but a regular file might block, or do something.
                    status = os.stat(name, dir_fd=folder)
                    key = _status_key(status)
                    if key in found or key not in wanted:
                        continue
                    if not stat.S_ISREG(status.st_mode):
                        continue
                    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
                    fd = os.open(name, flags, dir_fd=folder)
                except OSError:
                    continue
                if _status_key(os.fstat(fd)) == key:
                    found[key] = fd
                else:
                    os.close(fd)
        finally:
            os.close(folder)
        return found


def _key(mapping: Mapping) -> tuple[tuple[int, int], int]:
    return mapping.device, mapping.inode


def _status_key(status: os.stat_result) -> tuple[tuple[int, int], int]:
    return (os.major(status.st_dev), os.minor(status.st_dev)), status.st_ino


def _join(mappings: Sequence[Mapping]) -> list[Range]:
    """
    Return memory that may be one RAM: it is all anonymous, or goes on in one file.

    Advice to the kernel may cut RAM into several mappings. Other memory may follow it
    without a gap: that of another node of NUMA, or a thread's stack.
    """
    joined: list[Range] = []
    last: Mapping | None = None
    for item in mappings:
        if last is not None and last.end == item.start and _goes_on(last, item):
            joined[-1] = joined[-1]._replace(size=joined[-1].size + item.size)
        else:
            joined.append(Range(item.start, item.size))
        last = item
    return joined


def _goes_on(first: Mapping, second: Mapping) -> bool:
    if _key(first) != _key(second) or first.shared is not second.shared:
        return False
    return first.inode == 0 or second.offset == first.offset + first.size


def _candidates(mappings: Sequence[Mapping]) -> list[Mapping]:
    """Return the mappings that may be a guest's RAM."""
    # The process can write its guest's RAM, and runs nothing of it: QEMU's buffers for
    # emulated code are larger. The kernel gives names in brackets to what is not RAM:
    # [heap], [stack], …
    likely = [
        item
        for item in mappings
        if item.readable
        and item.writable
        and not item.executable
        and (not item.name.startswith("[") or item.name.startswith("[anon"))
    ]
    blocks = [
        block
        for block in merge(Range(item.start, item.size) for item in likely)
        if block.size >= _LEAST
    ]
    starts = [block.start for block in blocks]
    return [
        item
        for item in likely
        if (i := bisect_right(starts, item.start) - 1) >= 0
        and item.start < blocks[i].end
    ]
