# SPDX-License-Identifier: GPL-2.0-or-later
"""
kmemdump's own ELF notes: one name for their owner, one number for each.

No number is small: crash looks only at the type of a note, and takes each note of type
1 for the registers of one more CPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from kmemdump.formats.elf import Note, pack_note

__all__ = ["OWNER", "NoteType", "find_own", "pack_own"]

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


def find_own(notes: Iterable[Note], type: NoteType) -> bytes | None:
    """Return the descriptor of the first of *notes* that is ours and of this type."""
    return next((it.desc for it in notes if (it.name, it.type) == (OWNER, type)), None)


def pack_own(type: NoteType, desc: bytes) -> bytes:
    """Return one of our notes with its padding."""
    return pack_note(OWNER, type, desc)
