# SPDX-License-Identifier: GPL-2.0-or-later
"""
The ELF header region of a minidump: where everything belongs, in two forms.

The kernel's kmemdump series has program headers and notes, the last of which continues
in another region (VMCOREINFO). Android's kernels have section headers, program headers,
and a string table with the names. The name of the region starts with ``KELF`` in all.

Its offsets are those in a file made of all regions in their order; they are not needed
to place a region, and may be wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import Enum
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
from kmemdump.text import c_string

__all__ = [
    "LABEL",
    "MARKED",
    "Form",
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
A note of ours has one for each PT_LOAD: ``seq_num`` and name in the table; zeros for a
slot that is not in use.
"""

_SHT_PROGBITS, _SHT_STRTAB = 1, 3
_MAX_BYTES = 4 << 20  # A region of 400 rows has less than 64 KiB.
_MAX_ENTRIES = 1024
_MAX_NOTES = 16384
_MAX_NAME = 64
_ADDRESS_END = 1 << 64


class Form(Enum):
    """Which kernel wrote the region."""

    SERIES = "series"
    """The kernel's kmemdump series, or this tool."""
    DOWNSTREAM = "downstream"
    """Android's kernels: with sections and names."""


class HeaderEntry(NamedTuple):
    """A region that the header describes."""

    name: str | None
    """As in the table: from the section of the same place, or from our own note."""
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
    """What an ELF header region says."""

    form: Form
    machine: int
    """ELF ``e_machine``."""
    entries: tuple[HeaderEntry, ...]
    """In the order of the program headers; then what only sections describe."""
    notes: tuple[Note, ...]
    """Those that are wholly in the region."""
    vmcoreinfo_size: int | None
    """Size of the text of the VMCOREINFO note, which is another region, in bytes."""
    banner: str
    """Of the kernel, if it is there."""

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

    :param data: The region, from its first byte on; of more than 4 MiB, the start.
    :raises FormatError: If it is no ELF64 core, or its tables are not in *data*.
    """
    data = data[:_MAX_BYTES]
    header = parse_header(data, source)
    headers = [
        ProgramHeader(*fields)
        for fields in _table(
            data,
            PROGRAM_HEADER,
            header.phoff,
            header.phnum,
            header.phentsize,
            "program headers",
            source,
        )
    ]
    sections: list[_SectionHeader] = []
    if header.shnum:
        sections = [
            _SectionHeader(*fields)
            for fields in _table(
                data,
                SECTION_HEADER,
                header.shoff,
                header.shnum,
                header.shentsize,
                "section headers",
                source,
            )
        ]
    names = _Names(data, sections, header.shstrndx)
    loads = [item for item in headers if item.type == PT_LOAD]
    form = Form.DOWNSTREAM if sections else Form.SERIES
    notes, vmcoreinfo_size = _parse_notes(data, headers, source)
    named, rest = _match(loads, sections, names, _labels(notes))
    return HeaderRegion(
        form,
        header.machine,
        (*named, *rest),
        tuple(notes),
        vmcoreinfo_size,
        _banner(data, sections, names),
    )


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


class _Names:
    """The string table, if there is one that is in the region."""

    def __init__(self, data: bytes, sections: list[_SectionHeader], index: int) -> None:
        self._table = b""
        if index < len(sections) and sections[index].type == _SHT_STRTAB:
            table = sections[index]
            self._table = data[table.offset : table.offset + table.size]

    def get(self, at: int) -> str:
        raw = self._table[at : at + _MAX_NAME].partition(b"\0")[0]
        return raw.decode("ascii", "backslashreplace")


def _table(
    data: bytes,
    layout: struct.Struct,
    offset: int,
    count: int,
    size: int,
    what: str,
    source: str,
) -> Iterator[tuple[int, ...]]:
    if not count:
        return iter(())
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
    names: _Names,
    labels: list[tuple[int, str]],
) -> tuple[list[HeaderEntry], list[HeaderEntry]]:
    """Find the section of each program header: the same data, the same address."""
    known: dict[tuple[int, int], list[tuple[int, str]]] = {}
    for i, section in enumerate(sections):
        if section.type == _SHT_PROGBITS and section.size:
            place = section.offset, section.size
            known.setdefault(place, []).append((i, names.get(section.name)))
    used: set[int] = set()
    entries = []
    for i, load in enumerate(loads):
        if load.filesz == 0 or load.paddr + load.filesz > _ADDRESS_END:
            continue
        # What Linux wrote at the same time has the same virtual address, too.
        found = known.get((load.offset, load.filesz), [])
        found = [it for it in found if sections[it[0]].addr == load.vaddr] or found
        used.update(i for i, _ in found[:1])
        name = found[0][1] if found else ""
        if name and name in _NO_REGION:
            continue  # The banner: its bytes are in this region.
        number, label = labels[i] if i < len(labels) else (0, "")
        entries.append(
            HeaderEntry(
                name or label or None,
                load.vaddr,
                load.paddr,
                load.filesz,
                load.offset,
                number or None,
            )
        )
    rest = [
        HeaderEntry(name, section.addr, None, section.size, section.offset)
        for i, section in enumerate(sections)
        if section.type == _SHT_PROGBITS
        and i not in used
        and section.size
        and (name := names.get(section.name)) not in _NO_REGION
    ]
    return entries, rest


def _labels(notes: list[Note]) -> list[tuple[int, str]]:
    """Return the numbers and names that belong to the program headers, in order."""
    desc = find_own(notes, NoteType.LABELS) or b""
    whole = len(desc) // LABEL.size * LABEL.size
    return [(number, c_string(raw)) for number, raw in LABEL.iter_unpack(desc[:whole])]


def _banner(data: bytes, sections: list[_SectionHeader], names: _Names) -> str:
    for section in sections:
        if names.get(section.name) == "linux_banner":
            raw = data[section.offset : section.offset + min(section.size, 4096)]
            return raw.partition(b"\0")[0].decode("utf-8", "replace").strip()
    return ""


def _parse_notes(
    data: bytes, headers: list[ProgramHeader], source: str
) -> tuple[list[Note], int | None]:
    """
    Parse the notes as far as they are in *data*.

    :return: The notes, and the size of the text of VMCOREINFO.
    """
    notes: list[Note] = []
    text_size: int | None = None
    last = 0  # Segments go upwards: nothing is parsed twice.
    for header in headers:
        if header.type != PT_NOTE:
            continue
        start = max(header.offset, last)
        last = min(header.offset + header.filesz, len(data))
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
