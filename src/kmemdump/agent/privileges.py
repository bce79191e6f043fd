# SPDX-License-Identifier: GPL-2.0-or-later
"""Give up what the agent needs only at its start."""

from __future__ import annotations

import ctypes
import os

from kmemdump.errors import UnsupportedError

__all__ = ["drop_admin"]

_NUMBER = 21
"""CAP_SYS_ADMIN of linux/capability.h."""
_VERSION_3 = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3 of linux/capability.h: two words for each set."""


def drop_admin() -> None:
    """
    Drop CAP_SYS_ADMIN of this thread, and of those that it starts, for good.

    Nothing happens without it. Call it before there are other threads.

    :raises UnsupportedError: If the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    # Effective, permitted and inheritable; first of capabilities 0 to 31.
    sets = (ctypes.c_uint32 * 6)()
    bit = 1 << _NUMBER
    if libc.capget(header, sets) == 0:
        if not any(word & bit for word in sets[:3]):
            return
        for i in range(3):
            sets[i] &= ~bit
        if libc.capset(header, sets) == 0:
            return
    reason = os.strerror(ctypes.get_errno())
    raise UnsupportedError(f"cannot drop CAP_SYS_ADMIN: {reason}")
