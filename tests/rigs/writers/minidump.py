# SPDX-License-Identifier: GPL-2.0-or-later
"""The minidump table, and machines whose memory has one."""

from collections.abc import Sequence
from typing import Any

from rigs.writers import put, put_text
from rigs.writers.smem import ANY, Part, write_smem

VALI, ENBL, DSBL = b"ILAV", b"LBNE", b"LBSD"
DONE, NONE, YES, NR = b"ENOD", b"ENON", b"SEY\0", b"RN\0\0"

Row = tuple[str, int, bytes, int, int]
"""Name, seq_num, valid, address, size."""


def write_toc(
    *,
    status: int = 1,
    array: int = 0,
    count: int = 0,
    initialized: int = 0,
    enabled: bytes = ENBL,
    subsystems: int = 10,
    encryption: tuple[bytes, bytes] = (NONE, YES),
) -> bytes:
    """Item 602; the arguments are for subsystem 0."""
    data = bytearray(16 + 32 * subsystems)
    put(data, 0, 4, status, 1, 0)
    put(data, 16, 4, initialized)
    put_text(data, 20, 4, enabled)
    put_text(data, 24, 4, encryption[0])
    put_text(data, 28, 4, encryption[1])
    put(data, 32, 4, count)
    put(data, 40, 8, array)
    return bytes(data)


def write_regions(rows: Sequence[Row]) -> bytes:
    """A region array."""
    data = bytearray(40 * len(rows))
    for i, (name, sequence, valid, address, size) in enumerate(rows):
        put_text(data, 40 * i, 16, name)
        put(data, 40 * i + 16, 4, sequence)
        put_text(data, 40 * i + 20, 4, valid)
        put(data, 40 * i + 24, 8, address, size)
    return bytes(data)


def write_old(rows: Sequence[tuple[str, int, int]], *, offset: int = 64) -> bytes:
    """Item 602 in its oldest layout."""
    data = bytearray(offset + 32 * (len(rows) + 1))
    put(data, 0, 4, 1, len(data))
    put(data, 8, 8, offset)
    for i, (name, address, size) in enumerate(rows):
        put_text(data, offset + 32 * i, 16, name)
        put(data, offset + 32 * i + 16, 8, address, size)
    return bytes(data)


def smem_with(toc: bytes, **settings: Any) -> bytes:
    """SMEM whose global partition has *toc* as item 602."""
    return bytes(write_smem([Part(ANY, ANY, {602: toc})], **settings))
