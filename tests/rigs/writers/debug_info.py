# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the note of debug info as its page says, without the parser's tables."""

import struct
import zlib
from collections.abc import Mapping, Sequence

__all__ = ["columns", "write_debug_info", "write_sections"]


def columns(numbers: Sequence[int], width: int) -> bytes:
    """Return the lowest byte of all numbers, then the next one of all, and so on."""
    return bytes(n >> 8 * i & 255 for i in range(width) for n in numbers)


def write_sections(
    sections: Sequence[tuple[int, bytes]],
    *,
    version: int = 2,
    start: int = 0x1000,
    end: int = 0x2000,
) -> bytes:
    """Sections are kind and data."""
    streams = [zlib.compress(data) for _, data in sections]
    head = struct.pack("<IIQQ", version, len(sections), start, end)
    for (kind, data), stream in zip(sections, streams, strict=True):
        head += struct.pack("<IIQQ", kind, 0, len(data), len(stream))
    return head + b"".join(streams)


def write_debug_info(
    symbols: Sequence[tuple[int, str, int]],
    btf: bytes = b"",
    variables: Mapping[str, int] | None = None,
) -> bytes:
    """Symbols are address, name and st_info, by address."""
    before = [0, *(address for address, _, _ in symbols)]
    gaps = [row[0] - last for row, last in zip(symbols, before, strict=False)]
    table = b"".join(
        struct.pack("<I", number) + name.encode() + b"\0"
        for name, number in (variables or {}).items()
    )
    return write_sections(
        [
            (1, b"".join(name.encode() + b"\0" for _, name, _ in symbols)),
            (2, bytes(info for _, _, info in symbols)),
            (3, columns(gaps, 8)),
            (5, btf),
            (7, table),
        ]
    )
