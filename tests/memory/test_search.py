# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes in memory with holes are found, each once."""

import pytest

from kmemdump.errors import NotCapturedError
from kmemdump.memory.ranges import Range
from kmemdump.memory.search import find_bytes

HOLE = range(5 << 20, (5 << 20) + 4096)


class Memory:
    """Ranges of zeros with marks in them, and a hole that cannot be read."""

    def __init__(self, *marks):
        self.ranges = [Range(4096, 9 << 20), Range(32 << 20, 4096)]
        self.marks = marks

    def read(self, address, size):
        if address < HOLE.stop and HOLE.start < address + size:
            raise NotCapturedError("a hole")
        data = bytearray(size)
        for mark in self.marks:
            for i, byte in enumerate(b"mark"):
                if 0 <= mark + i - address < size:
                    data[mark + i - address] = byte
        return bytes(data)


@pytest.mark.parametrize("highest_first", [False, True])
def test_found_in_order(highest_first):
    low = [4096, (4 << 20) + 4094, HOLE.start - 100_000, HOLE.stop + 100_000]
    high = [(32 << 20) + 8]
    found = find_bytes(Memory(*low, *high), b"mark", 2, highest_first=highest_first)
    assert list(found) == (high + low if highest_first else low + high)


def test_alignment_and_end():
    memory = Memory(8194, 16384)
    assert list(find_bytes(memory, b"mark", 4)) == [16384]
    assert list(find_bytes(memory, b"mark", 2, 16386)) == [8194]
