# SPDX-License-Identifier: GPL-2.0-or-later
"""Compressed parts of a core image: xz streams of sizes that are known beforehand."""

from __future__ import annotations

import lzma
from typing import Protocol

from kmemdump.errors import FormatError

__all__ = ["Compressor", "compress", "decompress"]

# Level 6 saves 18 %, and takes ten times as long; zlib takes 30 % more room.
_LEVEL = 0
_MEMORY = 64 << 20
"""Most bytes that a decompressor may allocate, besides its output."""


class Compressor(Protocol):
    """:func:`compress`, or what does the same."""

    def __call__(self, data: bytes, *, words: bool = False) -> bytes: ...


def compress(data: bytes, *, words: bool = False) -> bytes:
    """
    Compress data.

    :param words: Whether it consists of words of four bytes.
    """
    best = {"lc": 0, "lp": 2, "pb": 2} if words else {}
    filters = [{"id": lzma.FILTER_LZMA2, "preset": _LEVEL, **best}]
    return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)


def decompress(stream: bytes, size: int, source: str) -> bytes:
    """
    Undo :func:`compress`, in no more memory than the result takes.

    :param size: Size of the result in bytes.
    :param source: Name of the input, for messages.
    :raises FormatError: If the stream is damaged, or has another size.
    """
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY)
    try:
        # One byte more, so that the end of the stream is reached.
        data = decompressor.decompress(stream, size + 1)
    except (lzma.LZMAError, EOFError, MemoryError) as error:
        raise FormatError(source, f"not a whole xz stream: {error}") from None
    if len(data) != size or not decompressor.eof:
        raise FormatError(source, f"{len(data)} bytes in an xz stream, expected {size}")
    return data
