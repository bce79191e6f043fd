# SPDX-License-Identifier: GPL-2.0-or-later
"""A dead kernel's memory in a file like /proc/vmcore, and the copier that reads it."""

import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from kmemdump.backends.elf_header_region import Description
from kmemdump.backends.kdump import KdumpBackend
from kmemdump.formats.copied import check_copy, read_copied
from kmemdump.marking.registry import Registry
from kmemdump.memory.ranges import Range, Region
from rigs.synthetic import elf_core, note, prstatus, vmcoreinfo, vmcoreinfo_note

__all__ = [
    "INFO",
    "LIST",
    "MARKED",
    "REGIONS",
    "Ram",
    "assert_whole",
    "copy_in_file_system",
    "dump",
    "mark",
    "run_copier",
    "valid_raw",
    "write_vmcore",
]

LIST = Range(4 << 20, 2 << 20)
"""Where the list is."""
INFO = vmcoreinfo()
MARKED = 1_700_000_000
REGIONS = (
    (LIST.end, 4096),
    (LIST.end + 0x2345, 7),
    (LIST.end + 0x3000, 0x2000),
)
"""Address and size of what :func:`mark` marks."""
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


def mark(ram: Ram, info: bytes = INFO) -> Registry:
    """Mark :data:`REGIONS` in a list."""
    registry = Registry(description=Description(62, info, marked=MARKED))
    registry.attach(KdumpBackend(ram, LIST))
    registry.update(Region(0, f"r{i}", *it) for i, it in enumerate(REGIONS))
    return registry


def dump(ram: Ram, path: Path) -> Path:
    """Write what the crash kernel would show of a machine."""
    write_vmcore(path, [(0x1000, bytes(4096)), (ram.range.start, bytes(ram.data))])
    return path


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


def copy_in_file_system(disk: bytes, folder: Path) -> bytes | None:
    """Return the copy in /crash of an ext4 disk, ``None`` if the next boot has none."""
    image, found = folder / "image", folder / "found"
    image.write_bytes(disk)
    done = subprocess.run(
        ["/usr/sbin/e2fsck", "-fy", image], capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stdout  # Nothing to mend, or mended.

    def debugfs(request: str) -> str:
        argv = ["/usr/sbin/debugfs", "-R", request, str(image)]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    # /INODE/MODE/USER/GROUP/NAME/SIZE/
    names = [
        line.split("/")[5] for line in debugfs("ls -p /crash").splitlines() if line
    ]
    copies = [name for name in names if name.endswith(".elf")]
    if not copies:
        return None
    debugfs(f"dump /crash/{copies[0]} {found}")
    return found.read_bytes()


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
