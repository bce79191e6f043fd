# SPDX-License-Identifier: GPL-2.0-or-later
"""
The ELF header region of a minidump: where everything belongs, in two forms.

The kernel's kmemdump series has program headers and notes, the last of which continues
in another region (VMCOREINFO). Android's kernels have section headers, program headers,
and a string table with the names. The name of the region starts with ``KELF`` in all.

The offsets in it tell where data would be in a file made of all regions in their order;
they are not needed to place a region, and may be wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from kmemdump.errors import FormatError
from kmemdump.formats.elf import PT_LOAD, PT_NOTE, Note
from kmemdump.formats.notes import NoteType, find_own

__all__ = [
    "LABEL",
    "MARKED",
    "Form",
    "HeaderEntry",
    "HeaderRegion",
    "parse_header_region",
]

_IDENT = b"\x7fELF\x02\x01\x01"
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")  # Elf64_Ehdr
_PHDR = struct.Struct("<IIQQQQQQ")  # Elf64_Phdr
_SHDR = struct.Struct("<IIQQQQIIQQ")  # Elf64_Shdr
_NHDR = struct.Struct("<III")  # Elf64_Nhdr
MARKED = struct.Struct("<Q")
"""
A note of ours: when the regions were marked, in seconds since the epoch.
"""
LABEL = struct.Struct("<I12s")
"""
A note of ours has one for each PT_LOAD: ``seq_num`` and name in the table; zeros for a
slot that is not in use.
"""

_ET_CORE = 4
_SHT_PROGBITS, _SHT_STRTAB = 1, 3
_MAX_BYTES = 4 << 20  # A region of 400 rows has less than 64 KiB.
_MAX_ENTRIES = 1024
_MAX_NOTES = 16384
_MAX_NAME = 64
_ADDRESS_END = 1 << 64


class Form(Enum):
    """Who wrote the region."""

    SERIES = "series"
    """The kernel's kmemdump series, or this tool."""
    DOWNSTREAM = "downstream"
    """Android's kernels: with sections and names."""


class HeaderEntry(NamedTuple):
    """A region that the header speaks of."""

    name: str | None
    """As in the table: from the section of the same place, or from our own note."""
    vaddr: int
    """Kernel virtual address in bytes."""
    paddr: int | None
    """Physical address in bytes; ``None`` if only a section speaks of it."""
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
    """In the order of the program headers; then what only sections speak of."""
    notes: tuple[Note, ...]
    """Those that are wholly in the region."""
    vmcoreinfo_size: int | None
    """Size of the text of the VMCOREINFO note, which is another region."""
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
    if len(data) < _EHDR.size:
        raise FormatError(
            source, f"{len(data)} bytes, expected an ELF header of {_EHDR.size}"
        )
    # fmt: off
    (ident, type_, machine, _, _, phoff, shoff, _, _,
     phentsize, phnum, shentsize, shnum, shstrndx) = _EHDR.unpack_from(data)
    # fmt: on
    if not ident.startswith(_IDENT) or type_ != _ET_CORE:
        raise FormatError(
            source,
            f"starts with {ident[:7].hex(' ')} and is of type {type_}, expected "
            f"{_IDENT.hex(' ')} and {_ET_CORE} (a 64-bit little-endian ELF core)",
        )
    headers = [
        _Header(*fields)
        for fields in _table(data, _PHDR, phoff, phnum, phentsize, source, "program")
    ]
    sections: list[_Section] = []
    if shnum:
        sections = [
            _Section(*fields)
            for fields in _table(
                data, _SHDR, shoff, shnum, shentsize, source, "section"
            )
        ]
    names = _Names(data, sections, shstrndx)
    loads = [header for header in headers if header.type == PT_LOAD]
    form = Form.DOWNSTREAM if sections else Form.SERIES
    notes, vmcoreinfo_size = _parse_notes(data, headers, source)
    named, rest = _match(loads, sections, names, _labels(notes))
    return HeaderRegion(
        form,
        machine,
        (*named, *rest),
        tuple(notes),
        vmcoreinfo_size,
        _banner(data, sections, names),
    )


class _Header(NamedTuple):
    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


class _Section(NamedTuple):
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

    def __init__(self, data: bytes, sections: list[_Section], index: int) -> None:
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
    source: str,
    kind: str,
) -> Iterator[tuple[int, ...]]:
    if not count:
        return iter(())
    if size != layout.size:
        raise FormatError(
            source, f"{kind} headers of {size} bytes, expected {layout.size}"
        )
    if count > _MAX_ENTRIES:
        raise FormatError(
            source, f"{count} {kind} headers, expected at most {_MAX_ENTRIES}"
        )
    end = offset + count * size
    if end > len(data):
        raise FormatError(
            source,
            f"{count} {kind} headers from {offset:#x} to {end:#x}, but the region ends "
            f"at {len(data):#x}",
        )
    return layout.iter_unpack(data[offset:end])


_NO_REGION = ("", "STR_TBL", "minidump_table", "linux_banner")


def _match(
    loads: list[_Header],
    sections: list[_Section],
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
    return [
        (number, raw.partition(b"\0")[0].decode("ascii", "backslashreplace"))
        for number, raw in LABEL.iter_unpack(desc[:whole])
    ]


def _banner(data: bytes, sections: list[_Section], names: _Names) -> str:
    for section in sections:
        if names.get(section.name) == "linux_banner":
            raw = data[section.offset : section.offset + min(section.size, 4096)]
            return raw.partition(b"\0")[0].decode("utf-8", "replace").strip()
    return ""


def _parse_notes(
    data: bytes, headers: list[_Header], source: str
) -> tuple[list[Note], int | None]:
    """Parse the notes as far as they are in *data*."""
    notes: list[Note] = []
    text: int | None = None
    last = 0  # Segments go upwards: nothing is parsed twice.
    for header in headers:
        if header.type != PT_NOTE:
            continue
        at = max(header.offset, last)
        last = end = min(header.offset + header.filesz, len(data))
        while at + _NHDR.size <= end:
            name_size, size, type_ = _NHDR.unpack_from(data, at)
            if name_size == size == type_ == 0:
                at += _NHDR.size
                continue
            start = at + _NHDR.size + (name_size + 3 & ~3)
            if start > end or len(notes) == _MAX_NOTES:
                raise FormatError(
                    f"{source}+{at:#x}", f"note with a name of {name_size} bytes"
                )
            raw = data[at + _NHDR.size : at + _NHDR.size + name_size]
            name = raw.partition(b"\0")[0].decode("ascii", "backslashreplace")
            if name == "VMCOREINFO":
                text = size  # A region of its own; here it ends, or bytes follow.
            if start + size > end:
                return notes, text
            notes.append(Note(name, type_, data[start : start + size]))
            at = start + (size + 3 & ~3)
    return notes, text
