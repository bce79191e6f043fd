# SPDX-License-Identifier: GPL-2.0-or-later
"""
kmemdump's own ELF notes: one name for their owner, one number for each.

No number is small: crash looks only at the type of a note, and takes each note of type
1 for the registers of one more CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum

from kmemdump.errors import FormatError
from kmemdump.formats.elf import (
    PT_NOTE,
    Note,
    pack_note,
    read_headers,
    read_note_header,
    read_whole,
)
from kmemdump.memory.ranges import round_up

__all__ = ["OWNER", "NoteType", "find_own", "pack_own", "read_own"]

_MAX_NOTES = 1 << 15
"""Most notes before ours: a kernel with 8192 CPUs has one for each."""

OWNER = "KMEMDUMP"
"""Name of all of our notes."""


class NoteType(IntEnum):
    """``n_type`` of our notes."""

    MANIFEST = 0x4B4D4431
    """The manifest of a core image: :mod:`kmemdump.coreimage.manifest`."""
    PACKED = 0x4B4D4432
    """Compressed memory: :mod:`kmemdump.coreimage.packed`."""
    MARKED = 0x4B4D4433
    """When a backend's regions were marked: :mod:`kmemdump.formats.elfheader`."""
    LABELS = 0x4B4D4434
    """The region of each PT_LOAD: :mod:`kmemdump.formats.elfheader`."""
    DEBUG_INFO = 0x4B4D4435
    """Symbols and types: :mod:`kmemdump.formats.debug_info`."""
    COPIED = 0x4B4D4438
    """Checksums of a crash kernel's copy: :mod:`kmemdump.formats.copied`."""
    FOLLOWED = 0x4B4D4439
    """Pointers that a crash kernel follows: :mod:`kmemdump.formats.followed`."""


def find_own(notes: Iterable[Note], type: NoteType) -> bytes | None:
    """Return the descriptor of the first of *notes* that is ours and of this type."""
    return next((it.desc for it in notes if (it.name, it.type) == (OWNER, type)), None)


def read_own(
    read: Callable[[int, int], bytes],
    size: int,
    source: str,
    type: NoteType,
    max_bytes: int,
) -> bytes | None:
    """
    Read the descriptor of one of our notes, and of the others no more than a header.

    :param read: Reads a part of the core, by its offset and its size.
    :param size: Size of the core in bytes.
    :param source: Its name, for messages.
    :param max_bytes: Most bytes of the descriptor.
    :return: ``None`` if there is no such note.
    :raises FormatError: If this is not an ELF core, if the notes are damaged, or if the
        descriptor is larger.
    """
    left = _MAX_NOTES
    for header in read_headers(read, size, source)[1]:
        offset, end = header.offset, header.offset + header.filesz
        while header.type == PT_NOTE and offset < end and left:
            left -= 1
            name, found, start, count = read_note_header(read, offset, size, source)
            if (name, found) == (OWNER, type):
                if count > max_bytes:
                    raise FormatError(
                        f"{source}+{offset:#x}",
                        f"note of {count} bytes, expected at most {max_bytes}",
                    )
                return read_whole(read, start, count, size, source, "a note")
            offset = start + round_up(count, 4)
    return None


def pack_own(type: NoteType, desc: bytes) -> bytes:
    """Return one of our notes with its padding."""
    return pack_note(OWNER, type, desc)
