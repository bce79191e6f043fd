# SPDX-License-Identifier: GPL-2.0-or-later
"""A dead kernel's memory in a file like /proc/vmcore, and the copier that reads it."""

import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from kmemdump.formats.copied import check_copy, read_copied
from kmemdump.memory.ranges import Range
from rigs.synthetic import elf_core, note, prstatus, vmcoreinfo, vmcoreinfo_note

__all__ = [
    "INFO",
    "LIST",
    "Ram",
    "assert_whole",
    "run_copier",
    "valid_raw",
    "write_vmcore",
]

LIST = Range(4 << 20, 2 << 20)
"""Where the list is."""
INFO = vmcoreinfo()
_PAGES = 1 << 16


class Ram:
    """A machine's memory: the list's, and 64 KiB behind it."""

    def __init__(self, start: int = LIST.start) -> None:
        self.range = Range(start, LIST.size + _PAGES)
        self.ranges = [self.range]
        self.data = bytearray(self.range.size)
        self.stores: list[tuple[int, bytes]] = []
        """Each word that was written, in order."""

    def read(self, address: int, size: int) -> bytes:
        at = address - self.range.start
        assert 0 <= at <= self.range.size - size
        return bytes(self.data[at : at + size])

    def write(self, address: int, data: bytes) -> None:
        self.stores += [
            (address + at, data[at : at + 8]) for at in range(0, len(data), 8)
        ]
        at = address - self.range.start
        self.data[at : at + len(data)] = data

    def close(self) -> None:
        pass


def write_vmcore(
    path: Path,
    memory: Iterable[tuple[int, bytes]],
    *,
    info: bytes = INFO + b"CRASHTIME=1700000000\n",
    cpus: int = 2,
) -> None:
    """Write what the crash kernel would show of some memory."""
    notes = b"".join(note(b"CORE", 1, prstatus(cpu)) for cpu in range(cpus))
    path.write_bytes(elf_core(memory, notes + vmcoreinfo_note(info)))


def valid_raw(disk: bytes) -> bytes | None:
    """Return the copy of a partition, from its first section on, if it is valid."""
    if not disk[12] & 1:  # RAW_VALID
        return None
    (start,) = struct.unpack_from("<Q", disk, 56 + 12)
    return disk[start:]


def assert_whole(copy: bytes) -> None:
    """Check a copy by its own checksums."""

    def read(at: int, count: int) -> bytes:
        return copy[at : at + count]

    copied = read_copied(read, len(copy), "copy")
    assert copied is not None
    assert check_copy(read, copied, "copy") == []


def run_copier(
    copier: Path, *settings: str, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run the copier, with what it says in the result."""
    argv: Sequence[str] = [str(copier), *settings]
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
