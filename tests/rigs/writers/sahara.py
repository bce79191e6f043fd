# SPDX-License-Identifier: GPL-2.0-or-later
"""Sahara packets and tables."""

from collections.abc import Sequence

from rigs.writers import put, put_text

Entry = tuple[int, int, int, str, str]
"""Type, address, length, description, file name."""


def write_packet(command: int, *words: int, wide: bool = False) -> bytes:
    size = 8 if wide else 4
    data = bytearray(8 + size * len(words))
    put(data, 0, 4, command, len(data))
    put(data, 8, size, *words)
    return bytes(data)


def write_table(entries: Sequence[Entry], *, wide: bool) -> bytes:
    size, word = (64, 8) if wide else (52, 4)
    data = bytearray(size * len(entries))
    for i, (type_, address, length, description, name) in enumerate(entries):
        put(data, size * i, word, type_, address, length)
        put_text(data, size * i + size - 40, 20, description)
        put_text(data, size * i + size - 20, 20, name)
    return bytes(data)
