# SPDX-License-Identifier: GPL-2.0-or-later
"""The ELF header region, in the series' and in the downstream form."""

import time

import pytest

from kmemdump.backends.elf_header_region import Description, describe
from kmemdump.errors import FormatError
from kmemdump.formats.elf import (
    ELF_HEADER,
    PROGRAM_HEADER,
    SECTION_HEADER,
    ProgramHeader,
    pack_header,
    pack_note,
)
from kmemdump.formats.elfheader import HeaderEntry, parse_header_region
from kmemdump.memory.ranges import Region
from rigs.writers import put
from rigs.writers.elfheader import write_downstream, write_series

LOADS = [
    ("banner", 0xFFFF800080000010, 0x80000010, 200),
    ("log_buf", 0xFFFF800081000000, 0x81000000, 0x20000),
    ("prb", 0xFFFF800082000008, 0x82000008, 8),
]


def test_series() -> None:
    data = write_series(LOADS, b"OSRELEASE=6.12\n".ljust(3000))
    assert len(data) == 15452  # As computed by hand from the kernel's formulas.
    header = parse_header_region(data, "KELF")
    assert header.machine == 183
    assert header.vmcoreinfo_size == 3000
    offset = 15452 + 3000
    assert header.entries == (
        HeaderEntry(None, LOADS[0][1], 0x80000010, 200, offset),
        HeaderEntry(None, LOADS[1][1], 0x81000000, 0x20000, offset + 200),
        HeaderEntry(None, LOADS[2][1], 0x82000008, 8, offset + 200 + 0x20000),
    )
    assert [(note.name, note.type) for note in header.notes] == [
        ("CORE", 1),
        ("CORE", 3),
    ]
    assert header.notes[0].desc == bytes(392)


def test_what_our_backend_writes() -> None:
    note = pack_note("CORE", 1, b"registers")
    description = Description(62, b"OSRELEASE=1\n", note)
    regions = [Region(3, "a", 0x1000, 5), Region(4, "b", 0x9000, 8, 0xFFFF0000)]
    data, text = describe(description, regions, slots=10, alignment=4)
    header = parse_header_region(data, "KELF")
    assert header.vmcoreinfo_size == 12
    offset = len(data) + len(text)
    assert header.entries == (
        HeaderEntry("Ka", 1 << 63 | 0x1000, 0x1000, 5, offset, 3),
        HeaderEntry("Kb", 0xFFFF0000, 0x9000, 8, offset + 8, 4),
    )
    assert header.notes[0].desc == b"registers"


@pytest.mark.parametrize("rows", [201, 401])
def test_downstream(rows: int) -> None:
    late = ("late", 0xFFFFFFC00A000000, 0, 64)
    data = write_downstream(LOADS, rows=rows, sections_only=[late])
    length = {201: 27880, 401: 55080}[rows] + 20
    assert len(data) == length
    header = parse_header_region(data, "KELF_HDR")
    assert header.vmcoreinfo_size is None
    assert header.entries == (
        HeaderEntry("banner", LOADS[0][1], 0x80000010, 200, length),
        HeaderEntry("log_buf", LOADS[1][1], 0x81000000, 0x20000, length + 200),
        HeaderEntry("prb", LOADS[2][1], 0x82000008, 8, length + 0x200C8),
        HeaderEntry("late", late[1], None, 64, length + 0x200D0),
    )


def test_trailing_bytes() -> None:
    data = write_downstream(LOADS)
    assert parse_header_region(data + bytes(99), "x") == parse_header_region(data, "x")


@pytest.mark.parametrize(
    ("at", "size", "value", "problem"),
    [
        (4, 1, 1, "64-bit little-endian"),
        (16, 2, 2, "of type 2, expected a core"),
        (54, 2, 32, "program headers of 32 bytes"),
        (56, 2, 2000, "2000 program headers"),
        (32, 8, 1 << 63, "from 0x8000000000000000"),
        (58, 2, 40, "section headers of 40 bytes"),
    ],
)
def test_refused(at: int, size: int, value: int, problem: str) -> None:
    data = bytearray(write_downstream(LOADS))
    put(data, at, size, value)
    with pytest.raises(FormatError, match=problem):
        parse_header_region(bytes(data), "KELF")


def test_short() -> None:
    with pytest.raises(FormatError, match="10 bytes"):
        parse_header_region(bytes(10), "KELF")
    data = write_series(LOADS, b"x")
    with pytest.raises(FormatError, match="but the region ends at 0x64"):
        parse_header_region(data[:100], "KELF")
    # Cut within the notes: the places are there nevertheless.
    assert len(parse_header_region(data[:13000], "KELF").entries) == 3


def test_strange_entries_are_left_out() -> None:
    loads = [("wraps", 0, (1 << 64) - 4, 8), ("empty", 0, 0x1000, 0), LOADS[2]]
    assert [
        it.paddr for it in parse_header_region(write_series(loads, b"x"), "x").entries
    ]
    header = parse_header_region(write_series(loads, b"x"), "x")
    assert [entry.paddr for entry in header.entries] == [0x82000008]


def seconds_for(data: bytes) -> float:
    before = time.process_time()
    parse_header_region(data, "x")
    return time.process_time() - before


def test_segments_that_go_back_are_not_parsed_again() -> None:
    size = 1 << 18
    whole = ProgramHeader(4, 0, 60_000, 0, 0, size - 60_000, 0, 0)
    empty = ProgramHeader(4, 0, 0, 0, 0, 0, 0, 0)
    once, often = (
        pack_header(62, [whole, empty] * times).ljust(size, b"\0") for times in (1, 500)
    )
    assert seconds_for(often) < 20 * seconds_for(once) + 0.1  # 500 times before.


def test_equal_sections_and_segments() -> None:
    count = 16_000
    start = 64 + 56 * count
    head = ELF_HEADER.pack(
        b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, start, 0, 64, 56, count, 64, count, 0
    )
    load = PROGRAM_HEADER.pack(1, 0, 0, 5, 0x1000, 8, 8, 0)
    section = SECTION_HEADER.pack(0, 1, 0, 7, 0, 8, 0, 0, 0, 0)
    assert seconds_for(head + load * count + section * count) < 3  # 12 s before.


def test_of_sections_with_the_same_data_that_at_the_same_address_counts() -> None:
    data = write_downstream([("a", 0x1000, 0x1000, 8), ("b", 0x2000, 0x1000, 8)])
    entries = parse_header_region(data, "x").entries
    assert [(it.name, it.vaddr) for it in entries] == [("a", 0x1000), ("b", 0x2000)]
