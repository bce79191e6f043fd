# SPDX-License-Identifier: GPL-2.0-or-later
"""Free the memory that only a look needs, in a process that looks again and again."""

from __future__ import annotations

import contextlib
import ctypes
import gc

from kmemdump.kernel.attach import OwnDebugInfo

__all__ = ["free_memory"]


def free_memory(own: OwnDebugInfo | None) -> None:
    """
    Give back to the machine what is free or can be made again.

    :param own: The kernel's own symbols and types, if they are known.
    """
    if own is not None and own.found is not None:
        own.found.symbols.forget_index()
    gc.collect()  # drgn's programs and our callbacks hold each other.
    with contextlib.suppress(AttributeError, OSError):  # Another C library.
        ctypes.CDLL(None).malloc_trim(0)  # glibc would keep it.
