# SPDX-License-Identifier: GPL-2.0-or-later
"""The section headers of an ELF file: System V ABI, chapter 4."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kmemdump.errors import FormatError
from kmemdump.formats.elf import (
    ELF_HEADER,
    ET_REL,
    SECTION_HEADER,
    ElfHeader,
    parse_header,
    read_whole,
)
from kmemdump.text import c_string

__all__ = ["Section", "parse_object", "parse_sections"]

_MAX_SECTIONS = 8192
"""A module has about a hundred."""
_MAX_NAMES = 1 << 20
_MAX_NAME = 256
"""Most bytes of names, and of a name."""
_SHF_ALLOC = 2


class Section(NamedTuple):
    """A section."""

    name: str
    offset: int
    """Offset in the file in bytes."""
    size: int
    """Size in memory in bytes."""
    flags: int

    @property
    def is_loaded(self) -> bool:
        """Whether it is in memory when the program runs."""
        return self.flags & _SHF_ALLOC != 0


def parse_object(
    read: Callable[[int, int], bytes], size: int, source: str
) -> list[Section]:
    """
    Return the sections of a relocatable file, as a kernel's module is one.

    :param size: Size of the file in bytes.
    :raises FormatError: If this is not an ELF64 little-endian file of that type, or if
        the headers are not wholly in the file.
    """
    raw = read_whole(read, 0, ELF_HEADER.size, size, source, "the ELF header")
    return parse_sections(read, parse_header(raw, source, ET_REL), size, source)


def parse_sections(
    read: Callable[[int, int], bytes],
    header: ElfHeader,
    size: int,
    source: str,
    most: int = _MAX_SECTIONS,
) -> list[Section]:
    """
    Return the sections of an ELF file.

    :param size: Size of the file in bytes.
    :param most: How many sections it may have.
    :raises FormatError: If the headers are too many, or are not wholly in the file.
    """
    if header.shentsize != SECTION_HEADER.size or header.shnum > most:
        raise FormatError(
            source,
            f"{header.shnum} section headers of {header.shentsize} bytes, expected at "
            f"most {most} of {SECTION_HEADER.size}",
        )
    count = header.shnum * SECTION_HEADER.size
    raw = read_whole(read, header.shoff, count, size, source, "the section headers")
    rows = list(SECTION_HEADER.iter_unpack(raw))
    if header.shstrndx >= len(rows):
        raise FormatError(
            f"{source}: e_shstrndx", f"{header.shstrndx} of {len(rows)} sections"
        )
    offset, length = rows[header.shstrndx][4:6]
    if length > _MAX_NAMES:
        raise FormatError(source, f"{length} bytes of names, at most {_MAX_NAMES}")
    # They may be the last bytes of the file.
    names = read_whole(read, offset, length, size, source, "the names of the sections")
    return [
        Section(c_string(names[name : name + _MAX_NAME]), start, length, flags)
        for name, _, flags, _, start, length, *_ in rows
    ]
