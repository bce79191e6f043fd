# SPDX-License-Identifier: GPL-2.0-or-later
"""
ELF64 little-endian core files: headers and notes.

Names and numbers are those of the System V ABI (chapters 4 and 5) and, for the notes of
a core, of Linux ``include/uapi/linux/elf.h``. Memory in segments is not read here: a
core that ends too early still has headers.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from kmemdump.errors import FormatError
from kmemdump.memory.ranges import round_up
from kmemdump.text import c_string

__all__ = [
    "ELF_HEADER",
    "EM_AARCH64",
    "EM_X86_64",
    "ET_CORE",
    "ET_REL",
    "MAX_HEADERS",
    "NT_PRPSINFO",
    "NT_PRSTATUS",
    "PF_R",
    "PF_W",
    "PF_X",
    "PROGRAM_HEADER",
    "PT_LOAD",
    "PT_NOTE",
    "SECTION_HEADER",
    "ElfCore",
    "Note",
    "ProgramHeader",
    "header_size",
    "iter_notes",
    "pack_header",
    "pack_note",
    "parse_core",
    "parse_header",
    "parse_notes",
    "read_headers",
    "read_note_header",
    "read_whole",
]

ET_REL = 1
ET_CORE = 4
EM_X86_64 = 62
EM_AARCH64 = 183
PT_LOAD = 1
PT_NOTE = 4
PF_X = 1
PF_W = 2
PF_R = 4
NT_PRSTATUS = 1
NT_PRPSINFO = 3

MAX_HEADERS = 1 << 20
"""Most program headers that are parsed."""
MAX_NOTE_BYTES = 64 << 20
"""Most bytes of notes that are parsed, over all segments together."""
MAX_NOTES = 1 << 18
"""Most notes that are parsed: a kernel with 8192 CPUs has a few per CPU."""
_MAX_NAME = 64
"""Most bytes of a note's name that matter."""
_MAX_BROKEN = 64
"""Most notes that are passed over because they are broken."""

PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
"""``Elf64_Phdr``"""
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
"""``Elf64_Shdr``"""
ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
"""``Elf64_Ehdr``"""

_IDENT = b"\x7fELF\x02\x01\x01"  # ELFCLASS64, ELFDATA2LSB, EV_CURRENT.
_NHDR = struct.Struct("<III")  # Elf64_Nhdr
# An Elf64_Nhdr with a printable name, whose size is less than 32 bytes.
_LIKELY_NOTE = re.compile(rb"[\x02-\x1f]\0{3}.{8}([ -~]{1,30})\0", re.DOTALL)
_KINDS = {ET_REL: "a relocatable file", ET_CORE: "a core"}
_EV_CURRENT = 1
# e_phnum has 16 bits. PN_XNUM there means that sh_info of section header 0 has
# the number: Linux commit 8d9032bbe4671 ("elf coredump: add extended numbering
# support") (in v2.6.34).
_PN_XNUM = 0xFFFF


class Note(NamedTuple):
    """One entry of a PT_NOTE segment."""

    name: str
    """Owner of *type*: ``CORE``, ``VMCOREINFO``, …"""
    type: int
    desc: bytes
    missing: int = 0
    """How many bytes of *desc* are missing, in a truncated file."""


class ElfHeader(NamedTuple):
    """The fields of an ``Elf64_Ehdr``, with their names there."""

    machine: int
    phoff: int
    shoff: int
    phentsize: int
    phnum: int
    shentsize: int
    shnum: int
    shstrndx: int


class ProgramHeader(NamedTuple):
    """An ``Elf64_Phdr``."""

    type: int
    flags: int
    offset: int
    """Offset in the file in bytes."""
    vaddr: int
    paddr: int
    filesz: int
    """Size in the file in bytes."""
    memsz: int
    align: int


class ElfCore(NamedTuple):
    """The contents of a core file's headers."""

    machine: int
    """``e_machine``."""
    headers: list[ProgramHeader]
    notes: list[Note]


def parse_core(
    read: Callable[[int, int], bytes],
    size: int,
    source: str,
    problems: list[str] | None = None,
) -> ElfCore:
    """
    Parse the headers and the notes of a core file.

    The offsets of PT_LOAD segments are not checked against *size*.

    :param problems: If given, a note that is broken is passed over, and adds a line.
    :raises FormatError: If this is not an ELF64 little-endian core, or if headers or
        notes are not wholly in the file or are too many.
    """
    machine, found = read_headers(read, size, source)
    headers = list(found)
    notes = parse_notes(read, headers, size, source, problems)
    return ElfCore(machine, headers, notes)


def read_headers(
    read: Callable[[int, int], bytes], size: int, source: str
) -> tuple[int, Iterator[ProgramHeader]]:
    """
    Return ``e_machine`` and the program headers of a core file.

    :raises FormatError: As :func:`parse_core`.
    """
    raw = read_whole(read, 0, ELF_HEADER.size, size, source, "the ELF header")
    header = parse_header(raw, source)
    phnum = header.phnum
    if phnum == _PN_XNUM:
        _check_size("e_shentsize", header.shentsize, SECTION_HEADER, source)
        raw = read_whole(
            read, header.shoff, SECTION_HEADER.size, size, source, "section header 0"
        )
        phnum = SECTION_HEADER.unpack(raw)[7]
    if phnum:
        _check_size("e_phentsize", header.phentsize, PROGRAM_HEADER, source)
    if phnum > MAX_HEADERS:
        raise FormatError(
            f"{source}: e_phnum",
            f"{phnum} program headers, expected at most {MAX_HEADERS}",
        )
    count = phnum * PROGRAM_HEADER.size
    raw = read_whole(read, header.phoff, count, size, source, "the program headers")
    # One by one: there are thousands, and the first is often enough.
    fields = PROGRAM_HEADER.iter_unpack(raw)
    return header.machine, (ProgramHeader(*item) for item in fields)


def parse_header(data: bytes, source: str, kind: int = ET_CORE) -> ElfHeader:
    """
    Parse the ELF header of a file.

    :param data: The file, from its first byte on.
    :param kind: The ``e_type`` that it must have.
    :raises FormatError: If this is not an ELF64 little-endian file of that type.
    """
    if len(data) < ELF_HEADER.size:
        raise FormatError(
            source, f"{len(data)} bytes, expected an ELF header of {ELF_HEADER.size}"
        )
    # fmt: off
    (ident, type_, machine, _version, _entry, phoff, shoff, _flags, _ehsize,
     phentsize, phnum, shentsize, shnum, shstrndx) = ELF_HEADER.unpack_from(data)
    # fmt: on
    _check_ident(ident, source)
    if type_ != kind:
        expected = f"{_KINDS[kind]} (type {kind})"
        raise FormatError(source, f"ELF file of type {type_}, expected {expected}")
    return ElfHeader(
        machine, phoff, shoff, phentsize, phnum, shentsize, shnum, shstrndx
    )


def _check_size(name: str, size: int, layout: struct.Struct, source: str) -> None:
    if size != layout.size:
        raise FormatError(f"{source}: {name}", f"is {size}, expected {layout.size}")


def _check_ident(ident: bytes, source: str) -> None:
    if not ident.startswith(_IDENT[:4]):
        raise FormatError(
            source, f"starts with {ident[:4].hex(' ')}, expected 7f 45 4c 46 (ELF)"
        )
    if not ident.startswith(_IDENT):
        raise FormatError(
            source,
            f"ELF class {ident[4]}, byte order {ident[5]}, version {ident[6]}, "
            "expected 2, 1, 1 (64-bit little-endian)",
        )


def parse_notes(
    read: Callable[[int, int], bytes],
    headers: Sequence[ProgramHeader],
    size: int,
    source: str,
    problems: list[str] | None = None,
) -> list[Note]:
    """
    Parse the notes of all PT_NOTE segments among *headers*.

    :param problems: As for :func:`parse_core`.
    :raises FormatError: If they are not wholly in the file or are too many.
    """
    notes: list[Note] = []
    total = 0
    for header in headers:
        if header.type != PT_NOTE:
            continue
        total += header.filesz
        if total > MAX_NOTE_BYTES:
            raise FormatError(
                source,
                f"{total} or more bytes of notes, expected at most {MAX_NOTE_BYTES}",
            )
        data = read_whole(read, header.offset, header.filesz, size, source, "the notes")
        where = f"{source}: notes at {header.offset:#x}"
        for note in iter_notes(data, where, problems=problems):
            if len(notes) == MAX_NOTES:
                raise FormatError(source, f"more than {MAX_NOTES} notes")
            notes.append(note)
    return notes


def read_whole(
    read: Callable[[int, int], bytes],
    offset: int,
    count: int,
    size: int,
    source: str,
    what: str,
) -> bytes:
    """
    Read a part of a file that must be there.

    :param what: The part, for messages.
    :raises FormatError: If it is not wholly in the file.
    """
    if count == 0:
        return b""
    if offset + count > size:
        raise FormatError(
            source,
            f"{what} should be at {offset:#x} to {offset + count:#x}, "
            f"but the file ends at {size:#x}: {offset + count - size} bytes are "
            "missing",
        )
    data = read(offset, count)
    if len(data) != count:
        raise FormatError(
            source, f"{what}: read {len(data)} of {count} bytes at {offset:#x}"
        )
    return data


def read_note_header(
    read: Callable[[int, int], bytes], offset: int, size: int, source: str
) -> tuple[str, int, int, int]:
    """
    Return the name and the type of a note, and the offset and the size of its desc.

    :param size: Size of the file in bytes.
    :raises FormatError: If they are not wholly in the file.
    """
    raw = read_whole(read, offset, _NHDR.size, size, source, "a note's header")
    namesz, descsz, type_ = _NHDR.unpack(raw)
    offset += _NHDR.size
    length = min(namesz, _MAX_NAME)
    name = read_whole(read, offset, length, size, source, "a note's name")
    return c_string(name), type_, offset + round_up(namesz, 4), descsz


def iter_notes(
    data: bytes,
    source: str,
    *,
    cut: bool = False,
    problems: list[str] | None = None,
) -> Iterator[Note]:
    """
    Parse the notes of one PT_NOTE segment.

    Both name and desc are padded to 4 bytes, as in all cores of Linux and QEMU,
    whatever p_align says. Zeros at the end are padding.

    :param cut: Whether *data* may end within the desc of its last note, or before a
        header.
    :param problems: If given, a note that is not wholly in *data* adds a line, and the
        next header that looks like one is taken for the next note: a dying CPU writes
        its note into the middle of those of all CPUs.
    :raises FormatError: If a note is not wholly in *data*.
    """
    offset = 0
    while offset < len(data):
        try:
            found, offset = _parse_note(data, offset, source, cut)
        except FormatError as error:
            if problems is None or len(problems) >= _MAX_BROKEN:
                raise
            problems.append(str(error))
            offset = _find_note(data, offset + _NHDR.size)
            continue
        if found is not None:
            yield found


def _parse_note(
    data: bytes, offset: int, source: str, cut: bool
) -> tuple[Note | None, int]:
    """Return the note at an offset, None if it is padding, and the next offset."""
    if len(data) - offset < _NHDR.size:
        if cut or data.count(0, offset) == len(data) - offset:
            return None, len(data)
        raise FormatError(
            f"{source}+{offset:#x}",
            f"{len(data) - offset} bytes left, expected a note's header "
            f"of {_NHDR.size}",
        )
    namesz, descsz, type_ = _NHDR.unpack_from(data, offset)
    if namesz == descsz == type_ == 0:
        return None, offset + _NHDR.size
    start = offset + _NHDR.size + round_up(namesz, 4)
    missing = max(start + descsz - len(data), 0)
    if start > len(data) or (missing and not cut):
        raise FormatError(
            f"{source}+{offset:#x}",
            f"note with a name of {namesz} and a desc of {descsz} bytes, "
            f"only {len(data) - offset - _NHDR.size} bytes left",
        )
    name = c_string(data[offset + _NHDR.size : offset + _NHDR.size + namesz])
    note = Note(name, type_, data[start : start + descsz], missing)
    return note, start + round_up(descsz, 4)


def _find_note(data: bytes, offset: int) -> int:
    """Return the next offset at which a whole note seems to be; else the end."""
    while (match := _LIKELY_NOTE.search(data, offset)) is not None:
        at = match.start()
        namesz, descsz, _ = _NHDR.unpack_from(data, at)
        start = at + _NHDR.size + round_up(namesz, 4)
        whole = start + descsz <= len(data)
        if at % 4 == 0 and namesz == len(match[1]) + 1 and whole:
            return at
        offset = at + 1
    return len(data)


def pack_note(name: str, type: int, desc: bytes) -> bytes:
    """Return a note with its padding; *name* is ASCII."""
    raw_name = name.encode("ascii") + b"\0"
    return b"".join(
        (
            _NHDR.pack(len(raw_name), len(desc), type),
            raw_name.ljust(round_up(len(raw_name), 4), b"\0"),
            desc.ljust(round_up(len(desc), 4), b"\0"),
        )
    )


def header_size(count: int) -> int:
    """Return the size of :func:`pack_header` of *count* program headers."""
    extra = SECTION_HEADER.size if count >= _PN_XNUM else 0
    return ELF_HEADER.size + extra + count * PROGRAM_HEADER.size


def pack_header(machine: int, headers: Sequence[ProgramHeader]) -> bytes:
    """
    Return the start of a core file: ELF header and program headers.

    With 0xffff or more program headers, section header 0 stands between the two and has
    their number.
    """
    extended = len(headers) >= _PN_XNUM
    phoff = ELF_HEADER.size + (SECTION_HEADER.size if extended else 0)
    pieces = [
        ELF_HEADER.pack(
            _IDENT,
            ET_CORE,
            machine,
            _EV_CURRENT,
            0,
            phoff,
            ELF_HEADER.size if extended else 0,
            0,
            ELF_HEADER.size,
            PROGRAM_HEADER.size,
            min(len(headers), _PN_XNUM),
            SECTION_HEADER.size if extended else 0,
            1 if extended else 0,
            0,
        )
    ]
    if extended:
        # As the kernel does: sh_size is e_shnum, sh_info is e_phnum.
        pieces.append(SECTION_HEADER.pack(0, 0, 0, 0, 0, 1, 0, len(headers), 0, 0))
    pieces.extend(PROGRAM_HEADER.pack(*header) for header in headers)
    return b"".join(pieces)
