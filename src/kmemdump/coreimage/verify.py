# SPDX-License-Identifier: GPL-2.0-or-later
"""Check whether a core image is unchanged since it was written."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

from kmemdump.coreimage.layout import MAX_ZEROS
from kmemdump.coreimage.manifest import RegionRecord
from kmemdump.coreimage.read import NO_ADDRESS, CoreImage, find_extents
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.formats.elf import PT_LOAD, ProgramHeader
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Range, parts_in, subtract, total
from kmemdump.progress import report_progress

__all__ = ["overlaps_much", "verify"]

_CHUNK = 1 << 20
_MAX_OVERLAP = 16


def verify(core: CoreImage) -> list[str]:
    """
    Check a core image against its manifest.

    This reads the whole file.

    :return: The problems, one line each; none if it is whole.
    :raises FormatError: If its manifest is broken.
    """
    problems = list(core.problems)
    regions = core.manifest.regions if core.manifest else ()
    loads = _loads(core.headers)
    cut = _find_cut(loads, core)
    if cut:
        problems.append(
            f"truncated: the file ends at {core.size:#x}, "
            f"{total(cut)} bytes of memory from {cut[0]} on should follow"
        )
    problems.extend(_find_conflicts(loads))
    try:
        if core.packed is not None and core.packed.ranges:
            core.packed.read(core.packed.ranges[0].start, 1)
        if core.has_debug_info and not core.debug_info_is_whole:
            core.debug_info()
    except FormatError as error:
        problems.append(str(error))
    # The regions of a registry hardly overlap; a forged manifest must not make
    # us read the file a million times. No region is read past what it claims.
    limit = _MAX_OVERLAP * core.size + MAX_ZEROS * len(core.headers)
    if sum(region.captured for region in regions) > limit:
        problems.append(f"regions claim more than {limit} bytes in this file")
        return problems
    left = most = _MAX_OVERLAP * (len(core.headers) + len(regions))
    for number, region in enumerate(regions):
        report_progress("comparing checksums", number, len(regions))
        parts = _parts_of(region, core.memory, left)
        left -= len(parts)
        if left <= 0:
            problems.append(f"regions have more than {most} parts in this file")
            return problems
        problem = _check_region(core.memory, region, parts)
        if problem:
            problems.append(f"region {region.name}: {problem}")
    return problems


def overlaps_much(core: CoreImage) -> bool:
    """
    Return whether regions overlap so much that copying each would take forever.

    Those of a registry hardly do.
    """
    left = _MAX_OVERLAP * sum(item.size for item in core.memory.ranges)
    for region in core.manifest.regions if core.manifest else ():
        whole = Range(region.address, region.size)
        for item in parts_in(whole, core.memory.ranges):
            left -= item.size
            if left < 0:
                return True
    return False


def _parts_of(region: RegionRecord, memory: Memory, most: int) -> list[Range]:
    """Return the parts of a region in the file; too many if they are more than most."""
    parts: list[Range] = []
    captured = 0
    for item in parts_in(Range(region.address, region.size), memory.ranges):
        parts.append(item)
        captured += item.size
        if captured > region.captured or len(parts) == most:
            break
    return parts


def _check_region(
    memory: Memory, region: RegionRecord, parts: Sequence[Range]
) -> str | None:
    captured, crc32 = sum(part.size for part in parts), 0
    if captured != region.captured:
        more = "or more " if captured > region.captured else ""
        return f"has {captured} {more}bytes in the file, expected {region.captured}"
    for item in parts:
        for start in range(item.start, item.end, _CHUNK):
            try:
                data = memory.read(start, min(_CHUNK, item.end - start))
            except NotCapturedError as error:
                return str(error)
            crc32 = zlib.crc32(data, crc32)
    if crc32 != region.crc32:
        return f"has checksum {crc32:#010x}, expected {region.crc32:#010x}"
    return None


def _loads(headers: Iterable[ProgramHeader]) -> list[ProgramHeader]:
    """Return the segments with physical memory, sorted by its address."""
    return sorted(
        (
            header
            for header in headers
            if header.type == PT_LOAD and header.filesz and header.paddr != NO_ADDRESS
        ),
        key=lambda header: (header.paddr, header.offset, header.filesz),
    )


def _find_cut(loads: Iterable[ProgramHeader], core: CoreImage) -> list[Range]:
    """Return the physical memory that lies past the end of the file."""
    extents = find_extents(loads, core.size, core.name)
    return subtract(
        (Range(header.paddr, header.filesz) for header in loads),
        (Range(item.address, item.size) for item in extents),
    )


def _find_conflicts(loads: Iterable[ProgramHeader]) -> list[str]:
    """Describe memory that is in the file twice: the copies may differ."""
    problems = []
    end = 0
    shift = 0
    for header in loads:
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
