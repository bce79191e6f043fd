# SPDX-License-Identifier: GPL-2.0-or-later
"""
Tell the kernel's two log rings apart.

``printk_rb_static`` and ``printk_rb_dynamic`` have the same size, and their names are
the same after eight characters. But the static one points to arrays in the kernel's
image, the other one, if it is in use, to memory that was allocated; and ``prb`` points
to the one in use.
"""

from __future__ import annotations

import struct

from kmemdump.collect.pieces import Piece
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["LABEL", "pointer_in", "ring_address"]

LABEL = "printk_r"
_STATIC = "printk_rb_static"
_IMAGE_SIZE = 1 << 28
_POINTER = struct.Struct("<Q")


def pointer_in(piece: Piece, offset: int = 0) -> int | None:
    """Return the pointer at an offset of a piece; ``None`` if it is not there."""
    try:
        return int(_POINTER.unpack(piece.store.read(offset, _POINTER.size))[0])
    except (NotCapturedError, struct.error):
        return None


def ring_address(piece: Piece, info: VmcoreInfo, prb: int | None) -> int | None:
    """
    Return the virtual address of the ring that a piece is.

    :param prb: Value of the kernel's pointer, if it is known.
    :return: ``None`` if the contents don't tell.
    """
    try:
        static = info.symbol(_STATIC)
        at = info.offset("printk_ringbuffer.desc_ring")
        at += info.offset("prb_desc_ring.descs")
    except (FormatError, NotCapturedError):
        return None
    if not 0 <= at < 1 << 16:
        return None
    descs = pointer_in(piece, at)
    if not descs:
        return None
    if abs(descs - static) < _IMAGE_SIZE:
        return static
    return prb if prb != static else None
