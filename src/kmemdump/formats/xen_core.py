# SPDX-License-Identifier: GPL-2.0-or-later
"""
Dumps of Xen's domains, as ``xl dump-core`` writes them: ELF without program headers.

A section has the pages, another one their frame numbers. Xen's
docs/misc/dump-core-format.txt defines the format, tools/libs/guest/xg_core.c writes it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

from kmemdump.errors import FormatError
from kmemdump.formats.elf import (
    iter_notes,
    parse_header,
    read_whole,
)
from kmemdump.formats.elf_sections import Section, parse_sections
from kmemdump.memory.ranges import ADDRESS_SPACE, Extent

__all__ = [
    "CONTEXT_NOTE",
    "CONTEXT_SIZE",
    "XEN_CORE_HEAD",
    "XenCore",
    "XenCpu",
    "is_xen_core",
    "parse_context",
    "parse_xen_core",
]

CONTEXT_NOTE = "vcpu_guest_context"
"""Name of a note that has the registers of a CPU: :func:`parse_context`."""

XEN_CORE_HEAD = 64
"""Bytes that :func:`is_xen_core` looks at: the ELF header."""
_PHNUM, _SHNUM = 56, 60
"""Offsets of ``e_phnum`` and ``e_shnum`` in an ``Elf64_Ehdr``."""
_MAX_SECTIONS = 64
"""Xen writes eight."""
_MAX_NOTES = 1 << 16
"""Most bytes of notes."""
_MAX_CPUS = 8192
_MAX_RUNS = 1 << 18
"""Most ranges of frames; a domain has as many as holes in its memory, and one more."""
_PIECE = 4096
"""Frame numbers that are read at once."""

# XEN_ELFNOTE_DUMPCORE_* (xen/include/public/elfnote.h).
_HEADER_NOTE = 0x2000001
_FORMAT_NOTE = 0x2000003
_HEADER = struct.Struct("<4Q")
_PARAVIRTUAL, _TRANSLATED = 0xF00FEBED, 0xF00FEBEE  # XC_CORE_MAGIC, XC_CORE_MAGIC_HVM
_PAGE_SIZE = 4096
_INVALID = (1 << 64) - 1  # XC_CORE_INVALID_PFN: the page is zeros.

# struct vcpu_guest_context of x86-64 (xen/include/public/arch-x86/xen.h): flags behind
# the FPU's registers, struct cpu_user_regs, CR3, and the bases of FS and of GS, the
# kernel's and the user's.
_CONTEXT = struct.Struct("<512xQ15Q8xQH6xQQH6xH6xH6xH6xH6x4288xQ128x3Q")
CONTEXT_SIZE = _CONTEXT.size
# fmt: off
_REGISTERS = (
    "R15", "R14", "R13", "R12", "RBP", "RBX", "R11", "R10", "R9", "R8",
    "RAX", "RCX", "RDX", "RSI", "RDI", "RIP", "CS", "RFL", "RSP",
    "SS", "ES", "DS", "FS", "GS",
)
# fmt: on
_ONLINE = 1 << 5  # VGCF_online


@dataclass(frozen=True, slots=True)
class XenCore:
    """A dump of a domain."""

    machine: int
    """``e_machine``."""
    paravirtual: bool
    """Whether its page tables have the host's addresses; *extents* is empty then."""
    extents: list[Extent]
    """Memory, with its places in the file; it may overlap if the file is damaged."""
    contexts: list[bytes]
    """``vcpu_guest_context`` of each CPU, as the architecture has it."""
    end: int
    """Offset of the end of the pages."""
    problems: list[str]
    """What was passed over because it is broken, one line each."""


@dataclass(frozen=True, slots=True)
class XenCpu:
    """A CPU of x86-64."""

    registers: dict[str, int]
    """Values by the names that QEMU prints; ``FS.base`` is the base of a segment."""
    page_table: int
    """Physical address of its page table."""
    online: bool


def is_xen_core(head: bytes) -> bool:
    """
    Return whether an ELF core has sections and no program headers.

    :param head: Its first bytes: :data:`XEN_CORE_HEAD`.
    """
    phnum, shnum = head[_PHNUM : _PHNUM + 2], head[_SHNUM : _SHNUM + 2]
    return phnum == b"\0\0" and shnum > b"\0\0"


def parse_xen_core(
    read: Callable[[int, int], bytes], size: int, source: str
) -> XenCore:
    """
    Parse everything in a dump but its pages.

    :raises FormatError: If it is not such a dump, or if sections that describe memory
        are missing, contradict each other, or are not wholly in the file.
    """
    raw = read_whole(read, 0, XEN_CORE_HEAD, size, source, "the ELF header")
    header = parse_header(raw, source)
    rows = parse_sections(read, header, size, source, _MAX_SECTIONS)
    sections = {row.name: row for row in reversed(rows)}

    def section(name: str) -> Section:
        if name not in sections:
            raise FormatError(
                source,
                f"an ELF core without program headers and without {name}, expected the "
                "sections of Xen's dump-core",
            )
        return sections[name]

    problems: list[str] = []
    notes = section(".note.Xen")
    if notes.size > _MAX_NOTES:
        raise FormatError(f"{source}: .note.Xen", f"{notes.size} bytes of notes")
    data = read_whole(read, notes.offset, notes.size, size, source, "the notes")
    where = f"{source}: notes at {notes.offset:#x}"
    paravirtual, cpus, count = _parse_notes(data, where, problems)
    found = section(".xen_prstatus")
    contexts = _contexts(read, found, cpus, size, source, problems)
    pages = section(".xen_pages")
    _check(source, ".xen_pages", pages, count, _PAGE_SIZE)
    extents: list[Extent] = []
    if not paravirtual:
        frames = section(".xen_pfn")
        _check(source, ".xen_pfn", frames, count, 8)
        extents = list(_runs(read, frames, count, pages.offset, size, source))
    return XenCore(
        header.machine,
        paravirtual,
        extents,
        contexts,
        pages.offset + pages.size,
        problems,
    )


def parse_context(data: bytes, where: str) -> XenCpu:
    """
    Parse ``vcpu_guest_context`` of x86-64.

    :raises FormatError: If it has another size.
    """
    if len(data) != CONTEXT_SIZE:
        raise FormatError(where, f"{len(data)} bytes, expected {CONTEXT_SIZE}")
    flags, *values = _CONTEXT.unpack(data)
    registers = dict(zip(_REGISTERS, values, strict=False))
    table, fs, kernel_gs, user_gs = values[len(_REGISTERS) :]
    registers["FS.base"] = fs
    registers["GS.base"] = user_gs if registers["CS"] & 3 else kernel_gs
    return XenCpu(registers, table & -_PAGE_SIZE, bool(flags & _ONLINE))


def _parse_notes(data: bytes, where: str, problems: list[str]) -> tuple[bool, int, int]:
    """Return whether a domain is paravirtual, and how many CPUs and pages it has."""
    notes = {
        note.type: note.desc
        for note in iter_notes(data, where, problems=problems)
        if note.name == "Xen"
    }
    version = notes.get(_FORMAT_NOTE, b"")
    if len(version) == 8 and any(version[4:]):
        major = int.from_bytes(version[4:], "little")
        raise FormatError(where, f"version {major} of the format, expected 0")
    desc = notes.get(_HEADER_NOTE, b"")
    if len(desc) != _HEADER.size:
        raise FormatError(
            where, f"a header of {len(desc)} bytes, expected {_HEADER.size}"
        )
    magic, cpus, pages, page_size = _HEADER.unpack(desc)
    if magic not in (_PARAVIRTUAL, _TRANSLATED) or page_size != _PAGE_SIZE:
        raise FormatError(
            where,
            f"magic {magic:#x} and pages of {page_size} bytes, expected "
            f"{_PARAVIRTUAL:#x} or {_TRANSLATED:#x} and {_PAGE_SIZE}",
        )
    return magic == _PARAVIRTUAL, cpus, pages


def _contexts(
    read: Callable[[int, int], bytes],
    section: Section,
    count: int,
    size: int,
    source: str,
    problems: list[str],
) -> list[bytes]:
    each, rest = divmod(section.size, count) if count else (0, section.size)
    if rest or not 0 < count <= _MAX_CPUS or each > _PAGE_SIZE * 4:
        problems.append(
            f"{source}: .xen_prstatus: {section.size} bytes for {count} CPUs skipped"
        )
        return []
    data = read_whole(
        read, section.offset, section.size, size, source, "the CPUs' registers"
    )
    return [data[at : at + each] for at in range(0, len(data), each)] if each else []


def _check(source: str, name: str, section: Section, count: int, each: int) -> None:
    if section.size != count * each:
        raise FormatError(
            f"{source}: {name}",
            f"{section.size} bytes, expected {count * each} for {count} pages",
        )


def _runs(
    read: Callable[[int, int], bytes],
    section: Section,
    count: int,
    offset: int,
    size: int,
    source: str,
) -> Iterator[Extent]:
    """
    Yield the memory of frames that follow each other, in the file, too.

    :param count: Number of frames, which *section* has.
    :param offset: Offset of the first page.
    """
    first = length = runs = 0
    for done in range(0, count, _PIECE):
        part = min(_PIECE, count - done)
        where = section.offset + 8 * done
        raw = read_whole(read, where, 8 * part, size, source, "the frame numbers")
        frames = struct.unpack(f"<{part}Q", raw)
        for frame, width in _pieces(frames):
            if frame == first + length:
                length += width
                continue
            if length:
                yield _extent(first, length, offset, source)
                offset += length * _PAGE_SIZE
                runs += 1
            if runs > _MAX_RUNS:
                raise FormatError(source, f"more than {_MAX_RUNS} ranges of pages")
            if frame == _INVALID:
                offset += _PAGE_SIZE
                frame = width = 0
            first, length = frame, width
    if length:
        yield _extent(first, length, offset, source)


def _pieces(frames: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield the first of frames that follow each other, and their number."""
    if frames == tuple(range(frames[0], frames[0] + len(frames))):
        yield frames[0], len(frames)  # Nearly always, in a domain of terabytes.
        return
    for _, group in groupby(enumerate(frames), lambda it: it[1] - it[0]):
        run = [frame for _, frame in group]
        yield run[0], len(run)


def _extent(first: int, length: int, offset: int, source: str) -> Extent:
    if (first + length) * _PAGE_SIZE > ADDRESS_SPACE:
        raise FormatError(source, f"page frame {first:#x} is past all addresses")
    return Extent(first * _PAGE_SIZE, length * _PAGE_SIZE, offset)
