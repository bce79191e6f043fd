# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes in memory with holes are found, each once."""

import pytest

from kmemdump.errors import NotCapturedError
from kmemdump.memory.physical import PageMemory
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


@pytest.mark.parametrize("wanted", [b"a\0b\0", b"\0\0ab", b"ab\0\0", b"a"])
def test_found_at_the_edges_of_memory_that_is_all_zeros(wanted):
    """Most of it is passed over at once."""
    unit = 16 << 10
    for edge in (0, unit, 3 * unit, 4 * unit):
        for place in range(edge - len(wanted) - 1, edge + 2):
            if 0 <= place <= 4 * unit - len(wanted):
                data = bytearray(4 * unit)
                data[place : place + len(wanted)] = wanted
                memory = PageMemory(
                    {i: bytes(data[i * 4096 :][:4096]) for i in range(4 * unit // 4096)}
                )
                assert list(find_bytes(memory, wanted, 1)) == [place]


def test_zeros_are_found_in_zeros():
    memory = PageMemory({0: bytes(4096)})
    assert len(list(find_bytes(memory, bytes(8), 1))) == 4096 - 7
