# SPDX-License-Identifier: GPL-2.0-or-later
"""Qualcomm SMEM as boot firmware makes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rigs.writers import put, put_text

ANY = 0xFFFE


@dataclass
class Part:
    """A partition; its items map numbers to data."""

    host0: int
    host1: int
    uncached: Mapping[int, bytes] = field(default_factory=dict)
    cached: Mapping[int, bytes] = field(default_factory=dict)
    size: int = 0x8000
    cacheline: int = 32
    padding_header: int = 0

    def write(self) -> bytearray:
        data = bytearray(self.size)
        put_text(data, 0, 4, "$PRT")
        put(data, 4, 2, self.host0, self.host1)
        put(data, 8, 4, self.size)
        at = 32
        for number, item in self.uncached.items():
            at = self._uncached(data, at, number, item)
        put(data, 12, 4, at)
        line = self.cacheline
        step = ((16 + line - 1) // line * line) if line else 0
        head = self.size - step
        for number, item in self.cached.items():
            padded = item + bytes(-len(item) % 8)
            self._header(data, head, number, padded, len(item))
            data[head - len(padded) : head] = padded
            head -= len(padded) + step
        put(data, 16, 4, head + step if not self.cached else head)
        if not self.cached:
            put(data, 16, 4, self.size)
        return data

    def _uncached(self, data: bytearray, at: int, number: int, item: bytes) -> int:
        padded = item + bytes(-len(item) % 8)
        self._header(data, at, number, padded, len(item))
        put(data, at + 10, 2, self.padding_header)
        at += 16 + self.padding_header
        data[at : at + len(padded)] = padded
        return at + len(padded)

    def _header(
        self, data: bytearray, at: int, number: int, padded: bytes, size: int
    ) -> None:
        put(data, at, 2, 0xA5A5, number)
        put(data, at + 4, 4, len(padded))
        put(data, at + 8, 2, len(padded) - size)


def write_smem(
    parts: Sequence[Part] = (),
    *,
    version: int = 12,
    items: int | None = 700,
    size: int = 0x40000,
    heap: Mapping[int, bytes] | None = None,
    heap_size: int = 0x1000,
) -> bytearray:
    """An SMEM region; *items* is the number in the SIII block, ``None``: no block."""
    data = bytearray(size)
    put(data, 0x5C, 4, version << 16 | 0x1234)
    put(data, 0xC0, 4, 1)
    free = 0x20D0
    for number, item in (heap or {}).items():
        padded = item + bytes(-len(item) % 8)
        put(data, 0xD0 + 16 * number, 4, 1, free, len(padded), 0)
        data[free : free + len(padded)] = padded
        free += len(padded)
    put(data, 0xC4, 4, free)
    put(data, 0xC8, 4, heap_size)
    if version == 11 and not parts:
        return data
    table = size - 4096
    put_text(data, table, 4, "$TOC")
    put(data, table + 4, 4, 1, len(parts))
    offset = 0x4000
    for i, part in enumerate(parts):
        row = table + 32 + 48 * i
        put(data, row, 4, offset, part.size, 0)
        put(data, row + 12, 2, part.host0, part.host1)
        put(data, row + 16, 4, part.cacheline)
        data[offset : offset + part.size] = part.write()
        offset += part.size
    if items is not None:
        info = table + 32 + 48 * len(parts)
        put_text(data, info, 4, "SIII")
        put(data, info + 4, 4, size)
        put(data, info + 16, 2, items)
    return data
