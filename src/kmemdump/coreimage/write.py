# SPDX-License-Identifier: GPL-2.0-or-later
"""Write a core image."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from kmemdump.coreimage.layout import CoreLayout, lay_out
from kmemdump.coreimage.manifest import Manifest, RegionRecord
from kmemdump.errors import NotCapturedError, TargetError
from kmemdump.files import PartialFile
from kmemdump.formats.elf import NT_PRPSINFO, NT_PRSTATUS, pack_header, pack_note
from kmemdump.formats.notes import NoteType, pack_own
from kmemdump.formats.sealed import ClearLine
from kmemdump.memory.physical import PAGE_SIZE, Memory
from kmemdump.memory.ranges import (
    Alias,
    Range,
    Region,
    intersect,
    merge,
    round_down,
    round_up,
    subtract,
)
from kmemdump.progress import report_progress
from kmemdump.sealing import Seal, sealed_output

__all__ = ["CoreContents", "Packed", "write_core"]

_CHUNK = 512 << 10
"""Bytes to copy at once; malloc returns larger blocks to the kernel after each."""
_ATTEMPTS = 4

# struct elf_prpsinfo, Linux include/linux/elfcore.h, on a 64-bit architecture:
# state, sname, zomb, nice; flag; uid, gid; pid, ppid, pgrp, sid; fname; psargs.
_PRPSINFO = struct.Struct("<BcBb4xQII4i16s80s")


class Packed(NamedTuple):
    """Descriptors of notes that are compressed; each is left out if it is empty."""

    debug_info: bytes = b""
    """Result of :func:`~kmemdump.formats.debug_info.pack_debug_info`."""
    memory: bytes = b""
    """Result of :func:`~kmemdump.coreimage.packed.pack_memory`."""


class CoreContents(NamedTuple):
    """The contents of a core image."""

    machine: int
    """``e_machine``."""
    memory: Memory
    """Source of the bytes."""
    regions: Sequence[Region]
    manifest: Manifest
    """All fields except the regions, which are filled in."""
    prstatus: Sequence[bytes] = ()
    """``struct elf_prstatus`` of each CPU, as crash wants them: online ones first."""
    vmcoreinfo: bytes = b""
    """Text of the kernel's VMCOREINFO; left out if empty."""
    command_line: str = ""
    """The kernel's command line."""
    direct: Alias | None = None
    """The direct map."""
    aliases: Sequence[Alias] = ()
    """Virtual addresses outside of the direct map."""
    packed: Packed = Packed()
    """What never changes while the kernel runs."""
    share_zeros: bool = True
    """Whether to look for pages of zeros first, and store them once."""


@dataclass(slots=True)
class _Checksum:
    """How much of a region is in the core image, in bytes, and its checksum."""

    region: Region
    captured: int = 0
    crc32: int = 0

    def add(self, address: int, data: bytes) -> None:
        wanted = self.region.range
        first = max(wanted.start - address, 0)
        last = min(wanted.end - address, len(data))
        if first < last:
            piece = memoryview(data)[first:last]
            self.crc32 = zlib.crc32(piece, self.crc32)
            self.captured += len(piece)


class _RunningChecksums:
    """
    Computes the checksums of regions while their memory is copied.

    Not in a thread: handing over the data takes longer than the checksum.
    """

    def __init__(self, checksums: Iterable[_Checksum]) -> None:
        self._waiting = sorted(
            checksums, key=lambda it: it.region.address, reverse=True
        )
        self._active: list[_Checksum] = []

    def add(self, piece: Range, data: bytes) -> None:
        """Add the next part of memory, in ascending order."""
        while self._waiting and self._waiting[-1].region.address < piece.end:
            self._active.append(self._waiting.pop())
        for item in self._active:
            item.add(piece.start, data)
        self._active = [it for it in self._active if it.region.range.end > piece.end]


def write_core(
    path: str | os.PathLike[str], contents: CoreContents, seal: Seal | None = None
) -> list[Range]:
    """
    Write a core image, which gets its name when it is whole.

    :param seal: Who can read it; by default, whoever can read the file.
    :return: The physical memory of the regions that could not be read and is not
        in the core image.
    :raises KmemdumpError: If *path* cannot be written.
    :raises TargetError: If memory vanishes again and again meanwhile.
    """
    with _opened(path, contents.manifest, seal) as output:
        return _write(output, contents)


def _opened(
    path: str | os.PathLike[str], manifest: Manifest, seal: Seal | None
) -> AbstractContextManager[BinaryIO]:
    if seal is None:
        return PartialFile(path)
    clear = ClearLine(
        release=manifest.kernel.osrelease,
        time=manifest.time,
        size=0,
        signature=manifest.signature if seal.show_cause else "",
        tags=seal.tags,
    )
    return sealed_output(path, seal, clear)


def _write(output: BinaryIO, contents: CoreContents) -> list[Range]:
    wanted = merge(region.range for region in contents.regions)
    readable = intersect(wanted, contents.memory.ranges)
    # Headers and notes come before the memory, as crash expects, and their size
    # depends on the number of ranges. So after a hole, which is rare, the copy
    # starts again without it.
    for _ in range(_ATTEMPTS):
        sums = [_Checksum(region) for region in contents.regions]
        notes_size = len(_pack_notes(contents, sums))
        zeros = _find_zeros(contents.memory, readable) if contents.share_zeros else []
        layout = lay_out(readable, notes_size, contents.direct, contents.aliases, zeros)
        output.truncate(0)  # Gaps must not keep data of the last attempt.
        lost = _copy_memory(output, layout, contents.memory, sums)
        if lost is None:
            break
        readable = subtract(readable, lost)
    else:
        raise TargetError(f"memory vanished in each of {_ATTEMPTS} attempts to copy it")
    notes = _pack_notes(contents, sums)
    assert len(notes) == notes_size
    output.truncate(layout.size)
    output.seek(layout.notes_offset)
    output.write(notes)
    output.seek(0)  # Last, so that only a whole file is an ELF file.
    output.write(pack_header(contents.machine, layout.headers))
    return subtract(wanted, readable)


def _pack_notes(contents: CoreContents, checksums: Sequence[_Checksum]) -> bytes:
    notes = [pack_note("CORE", NT_PRSTATUS, desc) for desc in contents.prstatus]
    # As in the kernel's own core headers: a running vmlinux.
    arguments = contents.command_line.encode("utf-8", "backslashreplace")[:79]
    psinfo = _PRPSINFO.pack(
        *(0, b"R", 0, 0, 0, 0, 0, 0, 0, 0, 0, b"vmlinux", arguments)
    )
    notes.append(pack_note("CORE", NT_PRPSINFO, psinfo))
    if contents.vmcoreinfo:
        notes.append(pack_note("VMCOREINFO", 0, contents.vmcoreinfo))
    records = [
        RegionRecord(
            id=item.region.id,
            name=item.region.name,
            address=item.region.address,
            size=item.region.size,
            captured=item.captured,
            crc32=item.crc32,
            virtual=item.region.virtual,
        )
        for item in checksums
    ]
    manifest = contents.manifest._replace(regions=records)
    notes.append(pack_own(NoteType.MANIFEST, manifest.to_json()))
    for type, desc in (
        (NoteType.DEBUG_INFO, contents.packed.debug_info),
        (NoteType.PACKED, contents.packed.memory),
    ):
        if desc:
            notes.append(pack_own(type, desc))
    return b"".join(notes)


def _copy_memory(
    output: BinaryIO, layout: CoreLayout, memory: Memory, checksums: list[_Checksum]
) -> list[Range] | None:
    """Copy the memory; return the ranges that cannot be read, ``None`` if none."""
    lost: list[Range] | None = None
    summing = _RunningChecksums(checksums)
    done, total = 0, sum(extent.size for extent in layout.extents)
    at = 0
    for extent in layout.extents:
        is_zero = extent.offset == layout.zero_offset
        if not is_zero:
            gap = extent.offset - at
            if at > 0 and 0 <= gap < PAGE_SIZE:
                output.write(bytes(gap))  # A seek would write what is buffered.
            else:
                output.seek(extent.offset)
            at = extent.offset + extent.size
        end = extent.address + extent.size
        start = extent.address
        while start < end:
            # Chunks end at multiples of their size, where regions often start.
            piece = Range(start, min(end, (start // _CHUNK + 1) * _CHUNK) - start)
            start = piece.end
            report_progress("copying memory", done, total)
            done += piece.size
            try:
                if is_zero:
                    data = bytes(piece.size)
                else:
                    data = memory.read(piece.start, piece.size)
            except NotCapturedError:
                lost = [*(lost or ()), *_find_lost(memory, piece)]
                continue
            if lost is not None:
                continue  # Now only find the other lost pages.
            summing.add(piece, data)
            if not is_zero:  # The file ends with the zeros.
                output.write(data)
    return lost


def _find_zeros(memory: Memory, ranges: Iterable[Range]) -> list[Range]:
    """Return the whole pages that hold only zeros."""
    zeros: list[Range] = []
    nothing = bytes(PAGE_SIZE)
    for item in ranges:
        first = round_up(item.start, PAGE_SIZE)
        last = round_down(item.end, PAGE_SIZE)
        for start in range(first, last, _CHUNK):
            try:
                data = memory.read(start, min(_CHUNK, last - start))
            except NotCapturedError:
                continue  # The copy finds the lost pages.
            zeros.extend(
                Range(start + at, PAGE_SIZE)
                for at in range(0, len(data), PAGE_SIZE)
                if data.startswith(nothing, at)
            )
    return merge(zeros)


def _find_lost(memory: Memory, piece: Range) -> list[Range]:
    """Return the pages of *piece* that cannot be read."""
    lost = []
    start = piece.start
    while start < piece.end:
        end = min(piece.end, (start // PAGE_SIZE + 1) * PAGE_SIZE)
        try:
            memory.read(start, end - start)
        except NotCapturedError:
            lost.append(Range(start, end - start))
        start = end
    return lost
