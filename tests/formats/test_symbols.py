# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's table of symbols."""

from hypothesis import given
from hypothesis import strategies as st

from kmemdump.formats.symbols import SymbolRow, make_symbols

TABLE = make_symbols(
    [
        SymbolRow(0x3000, "last", 0x12),
        SymbolRow(0x1000, "_stext", 0x10),
        SymbolRow(0x1000, "first", 0x12),
        SymbolRow(0x1010, "twin", 2),
        SymbolRow(0x2000, "twin", 1),
        SymbolRow(0x8000_0000, "far", 1),
    ]
)


def names(rows: list[SymbolRow]) -> list[str]:
    return [row.name for row in rows]


def test_by_name():
    assert TABLE.find("first") == [SymbolRow(0x1000, "first", 0x12, 0x10)]
    assert [row.address for row in TABLE.find("twin")] == [0x1010, 0x2000]
    assert [row.address for row in TABLE.find("twin", one=True)] == [0x1010]
    for name in ("", "firs", "irst", "first\0", "nosuch", "_stext\0first"):
        assert TABLE.find(name) == []


def test_by_address():
    assert names(TABLE.containing(0x1000)) == ["_stext", "first"]
    assert names(TABLE.containing(0x100F)) == ["_stext", "first"]
    assert names(TABLE.containing(0x1010)) == ["twin"]
    assert names(TABLE.containing(0xFFF)) == []


def test_the_last_one_and_a_gap_have_no_size():
    assert TABLE.containing(0x3001) == []  # far is more than a mebibyte away.
    assert TABLE.find("last")[0].size == 0
    assert TABLE.find("far")[0].size == 0


def test_sizes_that_are_known():
    table = make_symbols(
        [
            SymbolRow(0x1000, "outer", 1, 0x100),
            SymbolRow(0x1010, "inner", 1, 0x10),
            SymbolRow(0x1080, "label"),
            SymbolRow(0x1200, "after", 1, 4),
        ]
    )
    assert names(table.containing(0x1018)) == ["inner"]
    assert names(table.containing(0x1020)) == ["outer"]
    assert names(table.containing(0x1090)) == ["label"]  # Up to the next one.
    assert names(table.containing(0x1203)) == ["after"]
    assert names(table.containing(0x1204)) == []
    assert table.find("outer")[0].size == 0x100


def test_what_cannot_be_in_a_table():
    rows = [SymbolRow(1 << 64, "high"), SymbolRow(-1, "low"), SymbolRow(1, "a\0b")]
    table = make_symbols([*rows, SymbolRow(5, "good")])
    assert list(table) == [SymbolRow(5, "good")]
    assert list(make_symbols([])) == []
    assert make_symbols([]).find("x") == make_symbols([]).containing(1) == []


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.sampled_from("abc"), st.integers(0, 40)),
        max_size=30,
    ),
    st.integers(0, 400),
)
def test_rows_and_look_ups(given_rows, address):
    rows = [SymbolRow(at, name, 1, size) for at, name, size in given_rows]
    table = make_symbols(rows)
    assert list(table) == sorted(rows, key=lambda row: row.address)
    for row in table.containing(address):
        assert row.address <= address < row.address + row.size
    for name in "abc":
        found = [row.address for row in table.find(name)]
        assert found == sorted(row.address for row in rows if row.name == name)


def test_many_symbols_at_one_address():
    aliases = [SymbolRow(0x1000, f"alias_{i}", 1) for i in range(5000)]
    table = make_symbols([*aliases, SymbolRow(0x2000, "after", 1)])
    assert len(table.containing(0x1000)) == 1024
