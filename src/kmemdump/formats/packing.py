# SPDX-License-Identifier: GPL-2.0-or-later
"""
Compressed parts of a core image: zlib streams of sizes that are known beforehand.

xz would take 12 % less room, and five times as long to unpack: a fifth of the time in
which a core image is opened.
"""

from __future__ import annotations

import zlib
from typing import Protocol

from kmemdump.errors import FormatError

__all__ = ["Compressor", "compress", "decompress", "from_columns", "to_columns"]


class Compressor(Protocol):
    """:func:`compress`, or what does the same."""

    def __call__(self, data: bytes) -> bytes: ...


def compress(data: bytes) -> bytes:
    """Compress data."""
    # Of a kernel's symbols, types and unwind tables, level 4 makes 2.54 MB in 0.16 s,
    # level 6 makes 2.42 MB in 0.40 s, and level 1 makes 2.85 MB in 0.10 s.
    return zlib.compress(data, 4)


def decompress(stream: bytes, size: int, source: str) -> bytes:
    """
    Undo :func:`compress`, in no more memory than the result takes.

    :param size: Size of the result in bytes.
    :param source: Name of the input, for messages.
    :raises FormatError: If the stream is damaged, or has another size.
    """
    decompressor = zlib.decompressobj()
    try:
        # One byte more, so that the end of the stream is reached.
        data = decompressor.decompress(stream, size + 1)
    except zlib.error as error:
        raise FormatError(source, f"not a whole zlib stream: {error}") from None
    if len(data) != size or not decompressor.eof:
        problem = f"{len(data)} bytes in a zlib stream, expected {size}"
        raise FormatError(source, problem)
    return data


def to_columns(data: bytes, width: int) -> bytes:
    """
    Return the first byte of all words, then the second one of all, and so on.

    Numbers that are alike compress better so.

    :param width: Bytes of a word; the last one may be cut.
    """
    return b"".join(data[i::width] for i in range(width))


def from_columns(data: bytes, width: int) -> bytes:
    """Undo :func:`to_columns`."""
    rows = bytearray(len(data))
    at = 0
    for i in range(width):
        count = len(range(i, len(data), width))
        rows[i::width] = data[at : at + count]
        at += count
    return bytes(rows)
