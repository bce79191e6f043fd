# SPDX-License-Identifier: GPL-2.0-or-later
"""
The writes to a disk, as QEMU's blklogwrites logs them, and what a loss of power leaves.

The format is that of Linux dm-log-writes, Documentation/admin-guide/device-mapper.
"""

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Write", "read_write_log", "surviving"]

_SUPER = struct.Struct("<QQQI")
_MAGIC, _VERSION = 0x6A736677736872, 1
_ENTRY = struct.Struct("<QQQQ")
_FLUSH, _DISCARD = 1, 4


@dataclass(frozen=True, slots=True)
class Write:
    """An entry of the log."""

    offset: int
    """Bytes from the start of the disk."""
    data: bytes
    flushes: bool
    """Whether what was written before is on the disk for certain."""


def read_write_log(path: Path) -> list[Write]:
    """Return all entries, in their order; discards are left out."""
    log = path.read_bytes()
    magic, version, _, size = _SUPER.unpack_from(log)
    assert (magic, version) == (_MAGIC, _VERSION)
    found, at = [], size
    while at + _ENTRY.size <= len(log):
        sector, count, flags, _ = _ENTRY.unpack_from(log, at)
        at += size
        if flags & _DISCARD:
            continue
        data = log[at : at + count * size]
        assert len(data) == count * size
        found.append(Write(sector * size, data, bool(flags & _FLUSH)))
        at += len(data)
    return found


def surviving(
    writes: Sequence[Write], moment: int, chance: random.Random, *, cached: bool
) -> list[Write]:
    """
    Return which of the writes before a moment a loss of power leaves.

    :param cached: Whether the disk had a cache: then any of those after the last flush
        may be lost, and the others are there in any order.
    """
    before = writes[:moment]
    if not cached:
        return list(before)
    last = max((i for i, it in enumerate(before) if it.flushes), default=-1)
    kept = [it for it in before[last + 1 :] if chance.random() < 0.5]
    chance.shuffle(kept)
    return [*before[: last + 1], *kept]
