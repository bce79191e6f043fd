# SPDX-License-Identifier: GPL-2.0-or-later
"""
``Raw_Dmp!``: the image that firmware leaves in a partition (rawdump, logdump, ftm).

Header and sections are those of Microsoft's OfflineDumpHeaders.h; Qualcomm's firmware
writes minidump regions as sections with names like ``md_KELF.BIN``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

from kmemdump.errors import FormatError
from kmemdump.text import c_string

__all__ = [
    "RAWDUMP_MAGIC",
    "Rawdump",
    "RawdumpFlag",
    "RawdumpSection",
    "SectionType",
    "parse_rawdump",
]

RAWDUMP_MAGIC = b"Raw_Dmp!"
_SEEN_MAGIC = b"MiniDump"  # A vendor's script overwrites the signature with this one.

_HEADER = struct.Struct("<8sII8s8sIQQI")
_SECTION = struct.Struct("<IIIQQ16s20s")
_MAX_SECTIONS = 1 << 14  # A crash kernel writes one for each range.


class RawdumpFlag(IntFlag):
    """Flags of the image."""

    VALID = 1
    INCOMPLETE = 2
    """The storage was too small."""
    PROTECTED = 4
    FLUSHED = 8
    """Caches were written back before the dump."""


class SectionType(IntEnum):
    """The contents of a section."""

    NONE = 0
    DDR = 1
    CPU_CONTEXT = 2
    VENDOR = 3
    """Qualcomm's; it has the physical address in the same place as a DDR section."""
    REASON = 4
    SYSTEM = 5


@dataclass(frozen=True, slots=True)
class RawdumpSection:
    """A part of the image."""

    name: str
    type: int
    """A :class:`SectionType`, if it is known."""
    offset: int
    """Offset in the image in bytes."""
    size: int
    """Size in bytes that it should have."""
    held: int
    """Size in bytes that is in the image."""
    address: int | None
    """Physical address in bytes, if the section is memory."""


@dataclass(frozen=True, slots=True)
class Rawdump:
    """The contents of an image's headers."""

    sections: tuple[RawdumpSection, ...]
    problems: tuple[str, ...]
    """Problems of the image; *sections* has only those that can be read."""


def parse_rawdump(read: Callable[[int, int], bytes], size: int, source: str) -> Rawdump:
    """
    Parse the headers of an image.

    :param read: Reads (offset, count) of the image; may return less.
    :param size: Size of the image, or of the partition it is in, in bytes.
    :raises FormatError: If this is not such an image, or its table is truncated.
    """
    raw = read(0, _HEADER.size)
    if len(raw) < _HEADER.size or raw[:8] not in (RAWDUMP_MAGIC, _SEEN_MAGIC):
        raise FormatError(
            source,
            f"starts with {raw[:8].hex(' ')}, expected {RAWDUMP_MAGIC.hex(' ')} "
            "(Raw_Dmp!)",
        )
    _, _, flags, _, _, _, _, total, count = _HEADER.unpack(raw)
    if count > _MAX_SECTIONS:
        raise FormatError(source, f"{count} sections, expected at most {_MAX_SECTIONS}")
    table = read(_HEADER.size, count * _SECTION.size)
    if len(table) < count * _SECTION.size:
        raise FormatError(
            source,
            f"{count} sections need {count * _SECTION.size} bytes, and the image has "
            f"{len(table)} behind its header",
        )
    problems = _header_problems(flags, total, size)
    sections = []
    for i, fields in enumerate(_SECTION.iter_unpack(table)):
        section, problem = _section(fields, size)
        sections.append(section)
        if problem:
            problems.append(f"section {i} ({section.name or 'no name'}) {problem}")
    return Rawdump(tuple(sections), tuple(problems))


def _header_problems(flags: int, total: int, size: int) -> list[str]:
    problems = []
    if not flags & RawdumpFlag.VALID:
        problems.append(
            f"the image is not marked as valid (flags {flags:#x}): firmware was "
            "interrupted while it wrote"
        )
    if flags & RawdumpFlag.INCOMPLETE:
        problems.append(
            f"the storage was too small: {total} bytes were needed, it has {size}"
        )
    return problems


def _section(fields: tuple[Any, ...], size: int) -> tuple[RawdumpSection, str]:
    flags, _, type_, offset, length, information, raw_name = fields
    name = c_string(raw_name)
    held = max(min(length, size - offset), 0)
    problem = ""
    if not flags & RawdumpFlag.VALID:
        held = 0
        problem = f"is not valid (flags {flags:#x})"
    elif held < length:
        problem = f"has {held} of {length} bytes: the image ends before"
    address: int | None = None
    if type_ in (SectionType.DDR, SectionType.VENDOR):
        address = int.from_bytes(information[:8], "little")
        if address + length > 1 << 64:
            address, problem = None, "wraps around the end of memory"
    section = RawdumpSection(name, type_, offset, length, held, address)
    return section, problem
