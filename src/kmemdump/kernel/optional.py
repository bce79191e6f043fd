# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a kernel may lack, or a dump may not hold: a value or ``None``.

drgn raises :exc:`LookupError` for a type, variable or symbol that a kernel lacks, but
:exc:`AttributeError` for a member, and :exc:`FaultError` for memory. This is the one
list of them, so that a kernel's change takes no more than the value itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from drgn import FaultError, ObjectAbsentError

__all__ = ["ABSENT", "optional"]

ABSENT: tuple[type[Exception], ...] = (
    AttributeError,
    FaultError,
    LookupError,
    ObjectAbsentError,
    TypeError,
    ValueError,
)
"""What drgn raises for something that a kernel lacks, or that cannot be read."""

_T = TypeVar("_T")


def optional(find: Callable[[], _T]) -> _T | None:
    """Return what *find* returns, or ``None`` if the kernel or the dump lacks it."""
    try:
        return find()
    except ABSENT:
        return None
