# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person may have to say about a source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kmemdump.memory.ranges import Range

__all__ = ["Options"]


class Options(NamedTuple):
    """What a dump may not tell of itself."""

    smem: Range | None = None
    """Where SMEM is, in physical memory."""
    kinfo: int | None = None
    """Physical address of a ``debug_kinfo`` in bytes."""
    vmcoreinfo: Path | None = None
    memory_map: str | None = None
