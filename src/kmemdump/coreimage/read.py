# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a core image back, and telling whether it is what was written."""

from __future__ import annotations

import os
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from kmemdump.coreimage.layout import MAX_ZEROS
from kmemdump.coreimage.manifest import Manifest, RegionRecord
from kmemdump.coreimage.packed import find_packed
from kmemdump.errors import FormatError, NotCapturedError, TargetError
from kmemdump.formats.elf import (
    NT_PRSTATUS,
    PT_LOAD,
    ElfCore,
    ProgramHeader,
    parse_core,
)
from kmemdump.formats.notes import OWNER, NoteType, find_own
from kmemdump.memory.physical import Extent, FileMemory, JoinedMemory, Memory, flatten
from kmemdump.memory.ranges import Range, intersect, subtract
from kmemdump.progress import tell_progress

__all__ = ["CoreImage", "read_core", "verify"]

_CHUNK = 1 << 20
_MAX_OVERLAP = 16
_NO_ADDRESS = (1 << 64) - 1  # p_paddr where there is none, in /proc/kcore.


class CoreImage:
    """
    A core image, or another ELF core of a kernel: a :class:`Memory`.

    :param fd: Open file; owned by this object from here on.
    """

    def __init__(
        self, fd: int, path: Path, size: int, core: ElfCore, manifest: Manifest | None
    ) -> None:
        self.path = path
        self.size = size
        """Size of the file in bytes."""
        self.core = core
        self.manifest = manifest
        """None if kmemdump did not write it."""
        self.extents = _find_extents(core.headers, size)
        self._memory: Memory = FileMemory(fd, self.extents, str(path))
        self.packed = find_packed(core.notes, str(path))
        """The memory that is compressed."""
        if self.packed is not None:
            self._memory = JoinedMemory(self._memory, self.packed)

    @property
    def machine(self) -> int:
        """``e_machine``."""
        return self.core.machine

    @property
    def prstatus(self) -> list[bytes]:
        """``struct elf_prstatus`` of each CPU."""
        return [
            note.desc
            for note in self.core.notes
            if note.name == "CORE" and note.type == NT_PRSTATUS
        ]

    @property
    def vmcoreinfo(self) -> bytes | None:
        """Text of the kernel's VMCOREINFO."""
        for note in self.core.notes:
            if note.name == "VMCOREINFO":
                return note.desc
        return None

    @property
    def ranges(self) -> Sequence[Range]:
        """The physical memory that is in the file, packed or not: sorted, merged."""
        return self._memory.ranges

    def read(self, address: int, size: int) -> bytes:
        """
        Read physical memory.

        :raises NotCapturedError: If any of the bytes is not in the file.
        """
        return self._memory.read(address, size)

    def close(self) -> None:
        """Close the file."""
        self._memory.close()

    def __enter__(self) -> CoreImage:
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_core(path: str | os.PathLike[str]) -> CoreImage:
    """
    Open a core image or another ELF core.

    What is missing at the end of a truncated file is just not captured; see
    :func:`verify`.

    :raises FormatError: If it is no ELF core, or its manifest is broken.
    :raises TargetError: If it cannot be opened.
    """
    name = os.fspath(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # No wait on a FIFO.
    except OSError as error:
        raise TargetError(f"cannot open {name}: {error.strerror}") from error
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
        core = parse_core(lambda offset, count: os.pread(fd, count, offset), size, name)
        desc = find_own(core.notes, NoteType.MANIFEST)
        manifest = None
        if desc is not None:
            manifest = Manifest.from_json(desc, f"{name}: note {OWNER}")
        return CoreImage(fd, Path(path), size, core, manifest)
    except OSError as error:
        os.close(fd)
        raise TargetError(f"cannot read {name}: {error.strerror}") from error
    except BaseException:
        os.close(fd)
        raise


def verify(core: CoreImage) -> list[str]:
    """
    Check a core image against what it says about itself.

    All of it is read.

    :return: The problems, one line each; none if it is whole.
    """
    problems = []
    regions = core.manifest.regions if core.manifest else ()
    cut = _find_cut(core.core.headers, core.size)
    if cut:
        count = sum(item.size for item in cut)
        problems.append(
            f"truncated: the file ends at {core.size:#x}, "
            f"{count} bytes of memory from {cut[0]} on should follow"
        )
    problems.extend(_find_conflicts(core.core.headers))
    if core.packed is not None and core.packed.ranges:
        try:
            core.packed.read(core.packed.ranges[0].start, 1)
        except FormatError as error:
            problems.append(error.problem)
    # The regions of a registry hardly overlap; a forged manifest must not make
    # us read the file a million times.
    limit = _MAX_OVERLAP * core.size + MAX_ZEROS * len(core.core.headers)
    if sum(region.captured for region in regions) > limit:
        problems.append(f"regions claim more than {limit} bytes in this file")
        return problems
    available = core.ranges
    starts = [item.start for item in available]
    for number, region in enumerate(regions):
        tell_progress("comparing checksums", number, len(regions))
        # Only the ranges near the region, of which there may be thousands.
        first = max(bisect_right(starts, region.address) - 1, 0)
        last = bisect_right(starts, region.address + region.size)
        problem = _check_region(core, region, available[first:last])
        if problem:
            problems.append(f"region {region.name}: {problem}")
    return problems


def _check_region(
    core: CoreImage, region: RegionRecord, near: Iterable[Range]
) -> str | None:
    captured = crc32 = 0
    for item in intersect([Range(region.address, region.size)], near):
        for start in range(item.start, item.end, _CHUNK):
            try:
                data = core.read(start, min(_CHUNK, item.end - start))
            except NotCapturedError as error:
                return str(error)
            captured += len(data)
            crc32 = zlib.crc32(data, crc32)
    if captured != region.captured:
        return f"has {captured} bytes in the file, expected {region.captured}"
    if crc32 != region.crc32:
        return f"has checksum {crc32:#010x}, expected {region.crc32:#010x}"
    return None


def _loads(headers: Iterable[ProgramHeader]) -> list[ProgramHeader]:
    """Return what holds physical memory, sorted by its address."""
    return sorted(
        (
            header
            for header in headers
            if header.type == PT_LOAD
            and header.filesz
            and header.paddr != _NO_ADDRESS
            and header.paddr + header.filesz <= 1 << 64
        ),
        key=lambda header: (header.paddr, header.offset, header.filesz),
    )


def _find_extents(headers: Iterable[ProgramHeader], size: int) -> list[Extent]:
    """Return which physical memory is where, each byte of it once."""
    return flatten(
        Extent(header.paddr, min(header.filesz, size - header.offset), header.offset)
        for header in _loads(headers)
        if header.offset < size
    )


def _find_cut(headers: Iterable[ProgramHeader], size: int) -> list[Range]:
    """Return the physical memory that lies past the end of the file."""
    loads = _loads(headers)
    there = [Range(item.address, item.size) for item in _find_extents(loads, size)]
    return subtract((Range(item.paddr, item.filesz) for item in loads), there)


def _find_conflicts(headers: Iterable[ProgramHeader]) -> list[str]:
    """Describe memory that is in the file twice, which may differ."""
    problems = []
    end = 0
    shift = 0
    for header in _loads(headers):
        if header.paddr < end and header.offset - header.paddr != shift:
            problems.append(
                f"memory at {header.paddr:#x} is at offset {header.paddr + shift:#x} "
                f"and at {header.offset:#x} of the file"
            )
            if len(problems) == 10:
                break
        if header.paddr + header.filesz > end:
            end = header.paddr + header.filesz
            shift = header.offset - header.paddr
    return problems
