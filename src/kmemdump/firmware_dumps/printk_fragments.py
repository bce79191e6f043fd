# SPDX-License-Identifier: GPL-2.0-or-later
"""
Distinguish the kernel's two log rings, and find the arrays of each.

``printk_rb_static`` and ``printk_rb_dynamic`` have the same size, and their names are
the same after eight characters. The static one points to arrays in the kernel's image;
the other one, if it is in use, points to allocated memory. ``prb`` points to the one in
use. The arrays are found by these pointers.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.firmware_dumps.fragments import Fragment
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["LABEL", "STATIC", "array_address", "pointer_in", "ring_address"]

LABEL = "printk_r"
STATIC = "printk_rb_static"
_DESCS = ("printk_ringbuffer.desc_ring", "prb_desc_ring.descs")
_INFOS = ("printk_ringbuffer.desc_ring", "prb_desc_ring.infos")
_TEXT = ("printk_ringbuffer.text_data_ring", "prb_data_ring.data")
_ARRAYS = {
    "prb_desc": (STATIC, _DESCS),
    "prb_info": (STATIC, _INFOS),
    "__log_bu": (STATIC, _TEXT),
    "new_desc": (None, _DESCS),
    "new_info": (None, _INFOS),
    "new_log_": (None, _TEXT),
}
"""Labels of the arrays: the ring's symbol, if it has one, and its pointer's offset."""
_IMAGE_SIZE = 1 << 28
_POINTER = struct.Struct("<Q")


def pointer_in(fragment: Fragment, offset: int = 0) -> int | None:
    """Return the pointer at an offset of a fragment; ``None`` if it is too short."""
    try:
        return int(_POINTER.unpack(fragment.contents.read(offset, _POINTER.size))[0])
    except (NotCapturedError, struct.error):
        return None


def ring_address(fragment: Fragment, info: VmcoreInfo, prb: int | None) -> int | None:
    """
    Return the virtual address of the ring in a fragment.

    :param prb: Value of the kernel's pointer, if it is known.
    :return: ``None`` if the contents do not show it.
    """
    try:
        static = info.symbol(STATIC)
    except (FormatError, NotCapturedError):
        return None
    descs = _member(fragment, info, _DESCS)
    if not descs:
        return None
    if abs(descs - static) < _IMAGE_SIZE:
        return static
    return prb if prb != static else None


def array_address(
    label: str, info: VmcoreInfo, rings: Mapping[str | None, Fragment]
) -> int | None:
    """
    Return the virtual address of an array.

    :param label: Of its fragment.
    :param rings: Those that are known, by their symbol.
    :return: ``None`` if it is not an array, or its ring is missing.
    """
    symbol, members = _ARRAYS.get(label, (None, None))
    if members is None or symbol not in rings:
        return None
    return _member(rings[symbol], info, members)


def _member(fragment: Fragment, info: VmcoreInfo, members: Sequence[str]) -> int | None:
    """Return the pointer in a member of a member of a ring."""
    try:
        at = sum(map(info.offset, members))
    except (FormatError, NotCapturedError):
        return None
    return pointer_in(fragment, at) if 0 <= at < 1 << 16 else None
