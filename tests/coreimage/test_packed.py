# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that a core image keeps compressed."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.coreimage.packed import (
    MAX_BYTES,
    PackedMemory,
    find_packed,
)
from kmemdump.coreimage.packed import pack_memory as pack_data
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.formats.elf import Note
from kmemdump.formats.notes import OWNER, NoteType
from kmemdump.memory.physical import PAGE_SIZE, PageMemory
from kmemdump.memory.ranges import Range, merge

MEMORY = PageMemory({page: bytes([page]) * PAGE_SIZE for page in (1, 2, 3, 9)})


def pack_memory(memory, ranges):
    return pack_data(ranges, b"".join(memory.read(*item) for item in ranges))


def pack(ranges: list[tuple[int, int]], data: bytes, *, version=3, count=None) -> bytes:
    """Pack as the module's docstring tells it."""
    number = len(ranges) if count is None else count
    table = b"".join(struct.pack("<QQ", *item) for item in ranges)
    columns = b"".join(data[i::4] for i in range(4))
    return struct.pack("<II", version, number) + table + zlib.compress(columns)


def test_what_is_packed_can_be_read():
    desc = pack_memory(MEMORY, [Range(0x1800, 0x2000), Range(0x9000, 16)])
    packed = PackedMemory(desc, "core")
    assert packed.ranges == [Range(0x1800, 0x2000), Range(0x9000, 16)]
    assert packed.read(0x1FFF, 2) == b"\1\2"
    assert packed.read(0x9000, 16) == b"\x09" * 16


def test_layout():
    desc = pack_data([Range(0x1FFA, 10)], b"abcdefghij")
    assert desc[:24] == struct.pack("<IIQQ", 3, 1, 0x1FFA, 10)
    assert zlib.decompress(desc[24:]) == b"aeibfjcgdh"


@pytest.mark.parametrize(
    ("address", "size"), [(0x17FF, 1), (0x3800, 1), (0x37FF, 2), (0, 1), (0x17FF, 2)]
)
def test_what_is_not_packed(address, size):
    packed = PackedMemory(pack_memory(MEMORY, [Range(0x1800, 0x2000)]), "core")
    with pytest.raises(NotCapturedError, match=f"core does not hold {address:#x}"):
        packed.read(address, size)


def test_nothing():
    packed = PackedMemory(pack_memory(MEMORY, []), "core")
    assert packed.ranges == []
    with pytest.raises(NotCapturedError):
        packed.read(0x1000, 1)


@pytest.mark.parametrize(
    ("desc", "problem"),
    [
        (b"", "0 bytes, expected packed memory"),
        (bytes(7), "7 bytes"),
        (pack([(0, 4)], b"abcd", version=2), "version 2, expected 3"),
        (pack([(0, 4)], b"abcd", count=1000), "claims 1000 ranges"),
        (pack([(0, 4)], b"abcd", count=0xFFFFFFFF), "claims 4294967295 ranges"),
        (pack([(0, 4), (3, 4)], b"abcdefgh"), "overlap"),
        (pack([(9, 4), (0, 4)], b"abcdefgh"), "overlap"),
        (pack([(0, 0)], b""), "overlap"),
        (pack([(0, MAX_BYTES + 1)], b""), "too large"),
        (pack([((1 << 64) - 1, 4)], b"abcd"), "wrap around"),
        (pack([((1 << 64) - 1, (1 << 64) - 1)], b"abcd"), "too large"),
    ],
)
def test_a_table_that_is_refused(desc, problem):
    with pytest.raises(FormatError, match=f"^core: .*{problem}"):
        PackedMemory(desc, "core")


@pytest.mark.parametrize(
    ("desc", "problem"),
    [
        (pack([(0, 4)], b"abc"), "3 bytes in a zlib stream, expected 4"),
        (pack([(0, 4)], b"abcde"), "5 bytes in a zlib stream, expected 4"),
        (pack([(0, 4)], b"abcd")[:-2], "4 bytes in a zlib stream, expected 4"),
        (pack([(0, 4)], b"abcd")[:24], "0 bytes"),
        (
            pack([(0, 4)], b"abcd")[:24] + b"not a zlib stream",
            "not a whole zlib stream",
        ),
        # A gigabyte of zeros in a megabyte: only what was promised is unpacked.
        (pack([(0, 4)], bytes(1 << 26)), "5 bytes in a zlib stream, expected 4"),
    ],
)
def test_a_stream_that_is_refused_when_it_is_read(desc, problem):
    packed = PackedMemory(desc, "core")
    with pytest.raises(FormatError, match=f"^core: .*{problem}"):
        packed.read(0, 1)


@pytest.mark.slow
def test_a_bomb_costs_no_memory():
    import tracemalloc

    desc = pack([(0, 4096)], bytes(1 << 28))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            PackedMemory(desc, "core").read(0, 1)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_the_note_among_others():
    desc = pack_memory(MEMORY, [Range(0x1000, 16)])
    notes = [
        Note("CORE", NoteType.PACKED, b"not ours"),
        Note(OWNER, 1, b"another of ours"),
        Note(OWNER, NoteType.PACKED, desc),
    ]
    found = find_packed(notes, "core")
    assert found is not None
    assert found.ranges == [Range(0x1000, 16)]
    assert find_packed(notes[:2], "core") is None
    with pytest.raises(FormatError, match="core: note KMEMDUMP: 7 bytes"):
        find_packed([Note(OWNER, NoteType.PACKED, bytes(7))], "core")


@given(
    st.lists(st.tuples(st.integers(0x1000, 0x3FFF), st.integers(0, 0x800)), max_size=10)
)
def test_round_trip(pieces):
    ranges = [Range(start, min(size, 0x4000 - start)) for start, size in pieces]
    ranges = merge(ranges)
    packed = PackedMemory(pack_memory(MEMORY, ranges), "core")
    assert packed.ranges == ranges
    for item in packed.ranges:
        assert packed.read(item.start, item.size) == MEMORY.read(item.start, item.size)


GOOD = pack_memory(MEMORY, [Range(0x1000, 64), Range(0x2000, 64)])


def try_to_read(desc: bytes) -> None:
    try:
        packed = PackedMemory(desc, "core")
        for item in packed.ranges:
            assert len(packed.read(item.start, item.size)) == item.size
    except FormatError:
        pass


@given(st.binary(max_size=200))
def test_any_bytes(data):
    try_to_read(data)
    try_to_read(GOOD[:8] + data)
    try_to_read(GOOD[:40] + data)


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255))))
def test_any_damage(changes):
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    try_to_read(bytes(data))
