# SPDX-License-Identifier: GPL-2.0-or-later
"""The note with a kernel's symbols and types."""

import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats.debug_info import (
    DebugInfoNote,
    pack_debug_info,
    parse_debug_info,
    split_place,
)
from kmemdump.formats.symbols import SymbolRow, make_symbols
from rigs.writers.debug_info import columns, write_debug_info, write_sections

SYMBOLS = [(0x10, "percpu", 1), (0xFFFFFFFF81000000, "_stext", 0x12)]


def test_a_note_by_another_writer():
    note = parse_debug_info(write_debug_info(SYMBOLS, b"BTF!", {"jiffies": 7}), "core")
    assert [(row.address, row.name, row.info) for row in note.symbols] == SYMBOLS
    assert (note.btf, note.more_btf) == (b"BTF!", b"")
    assert note.variables == {"jiffies": 7}
    assert (note.start, note.end) == (0x1000, 0x2000)


def test_layout():
    rows = [SymbolRow(at, name, info) for at, name, info in SYMBOLS]
    desc = pack_debug_info(DebugInfoNote(make_symbols(rows), b"1234", 0x1000, 0x2000))
    assert struct.unpack_from("<IIQQ", desc) == (2, 4, 0x1000, 0x2000)
    at, found = 24 + 4 * 24, {}
    for i in range(4):
        kind, zero, size, stored = struct.unpack_from("<IIQQ", desc, 24 + 24 * i)
        found[kind] = zlib.decompress(desc[at : at + stored])
        assert (zero, size) == (0, len(found[kind]))
        at += stored
    assert at == len(desc)
    assert found == {
        1: b"percpu\0_stext\0",
        2: b"\x01\x12",
        3: columns([0x10, 0xFFFFFFFF81000000 - 0x10], 8),
        5: b"1234",
    }


@given(
    st.lists(
        st.builds(
            SymbolRow,
            st.integers(0, (1 << 64) - 1),
            st.text(st.characters(exclude_characters="\0", codec="utf-8")),
            st.integers(0, 255),
            st.integers(0, (1 << 32) - 1),
        )
    ),
    st.binary(),
    st.binary(),
    st.dictionaries(
        st.text(st.characters(exclude_characters="\0", codec="utf-8")),
        st.integers(0, (1 << 32) - 1),
    ),
)
def test_round_trip(rows, btf, more, variables):
    note = DebugInfoNote(make_symbols(rows), btf, 1, 2, more, variables)
    found = parse_debug_info(pack_debug_info(note), "core")
    assert list(found.symbols) == list(note.symbols)
    assert (found.btf, found.more_btf, found.variables) == (btf, more, variables)


def test_sections_of_a_later_version_are_passed_over():
    note = parse_debug_info(write_sections([(99, b"new"), (5, b"btf")]), "core")
    assert note.btf == b"btf"


def cut(data: bytes, size: int) -> bytes:
    """Return a note whose only section claims another size."""
    return data[:32] + struct.pack("<Q", size) + data[40:]


@pytest.mark.parametrize(
    ("desc", "problem"),
    [
        (b"", "0 bytes, expected debug info"),
        (write_sections([], version=1), "version 1, expected 2"),
        (struct.pack("<IIQQ", 2, 65, 1, 2) + bytes(4096), "claims 65 sections"),
        (struct.pack("<IIQQ", 2, 2, 1, 2), "claims 2 sections"),
        (write_sections([], start=2, end=2), "image from 0x2 to 0x2"),
        (write_sections([(1, b"a\0b")]), "names do not end 0 times"),
        (write_sections([(1, b"a\0b"), (2, b"\0")]), "names do not end 1 times"),
        (write_sections([(1, b"a\0"), (2, b"\0")]), "0 addresses and 0 sizes of 1"),
        (write_sections([(3, bytes(7))]), "7 bytes of numbers of 8 bytes"),
        (
            write_sections(
                [(1, b"a\0b\0"), (2, b"\0\0"), (3, columns([1, (1 << 64) - 1], 8))]
            ),
            "exceed 64 bits",
        ),
        (write_sections([(7, bytes(4) + b"name")]), "cut short at 0x0"),
        (write_sections([(5, b"btf")])[:-1], "expected at most"),
        (cut(write_sections([(5, b"btf")]), 4), "3 bytes in a zlib stream, expected 4"),
        (cut(write_sections([(5, b"btf")]), 2), "3 bytes in a zlib stream, expected 2"),
        (cut(write_sections([(5, b"btf")]), 1 << 40), "expected at most 268435456"),
    ],
)
def test_a_note_that_is_refused(desc, problem):
    with pytest.raises(FormatError, match=f"^core.*: .*{problem}"):
        parse_debug_info(desc, "core")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parse", "section"), [(parse_debug_info, 5), (split_place, 3)]
)
def test_a_bomb_costs_no_memory(parse, section):
    desc = cut(write_sections([(section, bytes(1 << 28))]), 1000)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            parse(desc, "core")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
