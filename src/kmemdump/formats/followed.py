# SPDX-License-Identifier: GPL-2.0-or-later
"""
A note of the list for a crash kernel: pointers to follow when the kernel is dead.

A task that started after the last look is not marked, and may be what each question is
about. Where the pointer to the current task of each CPU is does not change.
``kdump/follow.h`` has the same.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from kmemdump.formats.notes import NoteType, pack_own

__all__ = ["Followed", "pack_followed"]

_FOLLOWED = struct.Struct("<QIIII")


class Followed(NamedTuple):
    """A pointer to a task."""

    pointer: int
    """Physical address of the pointer."""
    size: int
    """Size in bytes of what it points to."""
    stack: int
    """Offset in that of a pointer to the stack."""
    stack_size: int
    """Size of the stack in bytes."""


def pack_followed(pointers: Iterable[Followed]) -> bytes:
    """Return the note."""
    desc = b"".join(_FOLLOWED.pack(*pointer, 0) for pointer in pointers)
    return pack_own(NoteType.FOLLOWED, desc)
