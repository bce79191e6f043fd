# SPDX-License-Identifier: GPL-2.0-or-later
"""
The ELF header region of a minidump: the addresses of all regions, in two forms.

The kernel's kmemdump series has program headers and notes, the last of which continues
in another region (VMCOREINFO). Android's kernels have section headers, program headers,
and a string table with the names. The name of the region starts with ``KELF`` in both.

Its offsets are those in a file made of all regions in their order; they are not needed
to place a region, and may be wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from kmemdump.errors import FormatError
from kmemdump.formats.elf import (
    PROGRAM_HEADER,
    PT_LOAD,
    PT_NOTE,
    SECTION_HEADER,
    Note,
    ProgramHeader,
    iter_notes,
    parse_header,
)
from kmemdump.formats.notes import NoteType, find_own
from kmemdump.memory.ranges import ADDRESS_SPACE
from kmemdump.text import c_string

__all__ = [
    "LABEL",
    "MARKED",
    "HeaderEntry",
    "HeaderRegion",
    "parse_header_region",
]

MARKED = struct.Struct("<Q")
"""
A note of ours: when the regions were marked, in seconds since the epoch.
"""
LABEL = struct.Struct("<I12s")
"""
An entry of a note of ours, one for each PT_LOAD: ``seq_num`` and name in the table;
zeros for an unused slot.
"""

_SHT_PROGBITS, _SHT_STRTAB = 1, 3
_MAX_BYTES = 4 << 20  # A region of 400 rows has less than 64 KiB.
_MAX_ENTRIES = 1 << 14  # A crash kernel's copy has a header for each range.
_MAX_NOTES = 16384
_MAX_NAME = 64


class HeaderEntry(NamedTuple):
    """A region that the header describes."""

    name: str | None
    """Name in the table: from the section with the same data, or from our own note."""
    vaddr: int
    """Kernel virtual address in bytes."""
    paddr: int | None
    """Physical address in bytes; ``None`` if only a section describes it."""
    size: int
    """Size in bytes."""
    offset: int
    """Offset in the file that all regions make, in bytes."""
    id: int | None = None
    """``seq_num`` of the region in the table, if this tool wrote the header."""


class HeaderRegion(NamedTuple):
    """The contents of an ELF header region."""

    machine: int
    """ELF ``e_machine``."""
    entries: tuple[HeaderEntry, ...]
    """In the order of the program headers; then those that only sections describe."""
    notes: tuple[Note, ...]
    """Those that are wholly in the region."""
    vmcoreinfo_size: int | None
    """Size in bytes of the VMCOREINFO note's text, which is another region."""

    @property
    def marked(self) -> int | None:
        """When the regions were marked, if this tool did: seconds since the epoch."""
        desc = find_own(self.notes, NoteType.MARKED)
        if desc is None or len(desc) != MARKED.size:
            return None
        seconds: int = MARKED.unpack(desc)[0]
        return seconds


def parse_header_region(data: bytes, source: str) -> HeaderRegion:
    """
    Parse an ELF header region.

    :param data: The region, or its first 4 MiB.
    :raises FormatError: If it is not an ELF64 core, or its tables are not in *data*.
    """
    data = data[:_MAX_BYTES]
    header = parse_header(data, source)
    raw = _table(
        data, PROGRAM_HEADER, header.phoff, header.phnum, header.phentsize, source
    )
    headers = [ProgramHeader(*fields) for fields in raw]
    raw = _table(
        data, SECTION_HEADER, header.shoff, header.shnum, header.shentsize, source
    )
    sections = [_SectionHeader(*fields) for fields in raw]
    loads = [item for item in headers if item.type == PT_LOAD]
    notes, vmcoreinfo_size = _parse_notes(data, headers, source)
    names = _section_names(data, sections, header.shstrndx)
    entries = tuple(_match(loads, sections, names, _labels(notes)))
    return HeaderRegion(header.machine, entries, tuple(notes), vmcoreinfo_size)


class _SectionHeader(NamedTuple):
    name: int
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entsize: int


def _section_names(
    data: bytes, sections: list[_SectionHeader], index: int
) -> list[str]:
    """Return the name of each section, from the string table with this index."""
    strings = b""
    if index < len(sections) and sections[index].type == _SHT_STRTAB:
        table = sections[index]
        strings = data[table.offset : table.offset + table.size]
    return [c_string(strings[it.name : it.name + _MAX_NAME]) for it in sections]


def _table(
    data: bytes,
    layout: struct.Struct,
    offset: int,
    count: int,
    size: int,
    source: str,
) -> Iterator[tuple[int, ...]]:
    if not count:
        return iter(())
    what = f"{'program' if layout is PROGRAM_HEADER else 'section'} headers"
    if size != layout.size:
        raise FormatError(source, f"{what} of {size} bytes, expected {layout.size}")
    if count > _MAX_ENTRIES:
        raise FormatError(source, f"{count} {what}, expected at most {_MAX_ENTRIES}")
    end = offset + count * size
    if end > len(data):
        raise FormatError(
            source,
            f"{count} {what} from {offset:#x} to {end:#x}, but the region ends "
            f"at {len(data):#x}",
        )
    return layout.iter_unpack(data[offset:end])


_NO_REGION = ("", "STR_TBL", "minidump_table", "linux_banner")


def _match(
    loads: list[ProgramHeader],
    sections: list[_SectionHeader],
    names: list[str],
    labels: list[tuple[int, str]],
) -> Iterator[HeaderEntry]:
    """
    Yield the entries of the program headers, then those that only sections have.

    A program header and its section have the same data and the same address.
    """
    # Of two with the same data and address, the first counts.
    known: dict[tuple[int, int], int] = {}
    at_address: dict[tuple[int, int, int], int] = {}
    for i, section in enumerate(sections):
        if section.type == _SHT_PROGBITS and section.size:
            place = section.offset, section.size
            known.setdefault(place, i)
            at_address.setdefault((*place, section.addr), i)
    used: set[int] = set()
    for i, load in enumerate(loads):
        if load.filesz == 0 or load.paddr + load.filesz > ADDRESS_SPACE:
            continue
        # A section that Linux wrote with it has the same virtual address, too.
        place = load.offset, load.filesz
        found = at_address.get((*place, load.vaddr), known.get(place))
        name = ""
        if found is not None:
            used.add(found)
            name = names[found]
        if name and name in _NO_REGION:
            continue  # The banner: its bytes are in this region.
        number, label = labels[i] if i < len(labels) else (0, "")
        yield HeaderEntry(
            name or label or None,
            *(load.vaddr, load.paddr, load.filesz, load.offset),
            number or None,
        )
    for i, section in enumerate(sections):
        described = i in used or names[i] in _NO_REGION
        if section.type == _SHT_PROGBITS and section.size and not described:
            rest = None, section.size, section.offset
            yield HeaderEntry(names[i], section.addr, *rest)


def _labels(notes: list[Note]) -> list[tuple[int, str]]:
    """Return the numbers and names that belong to the program headers, in order."""
    desc = find_own(notes, NoteType.LABELS) or b""
    whole = len(desc) // LABEL.size * LABEL.size
    return [(number, c_string(raw)) for number, raw in LABEL.iter_unpack(desc[:whole])]


def _parse_notes(
    data: bytes, headers: list[ProgramHeader], source: str
) -> tuple[list[Note], int | None]:
    """
    Parse the notes as far as they are in *data*.

    :return: The notes, and the size of the text of VMCOREINFO.
    """
    notes: list[Note] = []
    text_size: int | None = None
    last = 0  # Nothing is parsed twice.
    for header in headers:
        if header.type != PT_NOTE:
            continue
        start = max(header.offset, last)
        last = max(last, min(header.offset + header.filesz, len(data)))
        for note in iter_notes(data[start:last], f"{source}+{start:#x}", cut=True):
            if len(notes) == _MAX_NOTES:
                raise FormatError(source, f"more than {_MAX_NOTES} notes")
            if note.name == "VMCOREINFO":
                # The text is another region; here it is missing, or bytes follow.
                text_size = len(note.desc) + note.missing
            if note.missing:
                return notes, text_size
            notes.append(note)
    return notes, text_size
