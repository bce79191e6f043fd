# SPDX-License-Identifier: GPL-2.0-or-later
"""Free the memory that only a look needs, in a process that looks again and again."""

from __future__ import annotations

import contextlib
import ctypes
import gc

__all__ = ["free_memory"]


def free_memory() -> None:
    """Give back to the machine what is free."""
    gc.collect()  # drgn's programs and our callbacks hold each other.
    with contextlib.suppress(AttributeError, OSError):  # Another C library.
        ctypes.CDLL(None).malloc_trim(0)  # glibc would keep it.
