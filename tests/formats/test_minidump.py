# SPDX-License-Identifier: GPL-2.0-or-later
"""The minidump table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats.minidump import (
    Subsystem,
    TableRegion,
    Word,
    check_regions,
    pack_region,
    pack_subsystem,
    parse_old_table,
    parse_regions,
    parse_toc,
    region_array_size,
)
from rigs.writers.minidump import (
    DONE,
    DSBL,
    NR,
    VALI,
    write_old,
    write_regions,
    write_toc,
)


def test_toc() -> None:
    data = write_toc(array=0x1234567890, count=3, initialized=1, encryption=(DONE, NR))
    assert len(data) == 336
    toc = parse_toc(data, "toc")
    assert (toc.status, toc.revision, toc.enabled) == (1, 1, 0)
    assert len(toc.subsystems) == 10
    row = toc.subsystems[0]
    assert row == Subsystem(1, Word.ENBL, Word.DONE, Word.NR, 3, 0x1234567890)
    assert row.initialized
    assert pack_subsystem(row) == data[16:48]
    assert not toc.subsystems[1].initialized
    assert parse_toc(write_toc(enabled=DSBL), "toc").subsystems[0].enabled == Word.DSBL


@pytest.mark.parametrize("size", [0, 16, 47])
def test_short_toc(size: int) -> None:
    with pytest.raises(
        FormatError, match=f"item of {size} bytes, expected at least 48"
    ):
        parse_toc(write_toc()[:size], "toc")


def test_regions() -> None:
    rows = [
        ("KELF", 1, VALI, 0x80000000, 0x3C5C),
        ("Kvmcorein", 2, b"AVNI", 1 << 40, 4),
        ("sixteen-chars-xx", 7, VALI, 0, 8),
    ]
    data = write_regions(rows)
    first, second, third = parse_regions(data, 3, "table")
    assert first == TableRegion("KELF", 1, Word.VALI, 0x80000000, 0x3C5C)
    assert first.is_valid
    assert second.valid == Word.INVA
    assert not second.is_valid
    assert third.name == "sixteen-chars-x"
    assert pack_region(first) + pack_region(second) == data[:80]
    with pytest.raises(FormatError, match="4 regions in 120 bytes"):
        parse_regions(data, 4, "table")
    for name in ("", "x" * 16, "ä"):
        with pytest.raises(FormatError, match="expected 1 to 15"):
            pack_region(TableRegion(name, 0, 0, 0, 0))


def test_array_size() -> None:
    row = Subsystem(1, Word.ENBL, 0, 0, 201, 0x1000)
    assert region_array_size(row, "t") == 201 * 40
    with pytest.raises(FormatError, match="4097 regions"):
        region_array_size(Subsystem(1, 0, 0, 0, 4097, 0x1000), "t")
    with pytest.raises(FormatError, match="wraps around"):
        region_array_size(Subsystem(1, 0, 0, 0, 2, (1 << 64) - 79), "t")


def test_check_regions() -> None:
    rows = [
        TableRegion("a", 0, Word.VALI, 0x1000, 0x100),
        TableRegion("b", 0, Word.VALI, 0x10FC, 8),
        TableRegion("c", 0, Word.INVA, 0x1000, 8),
        TableRegion("", 0, Word.VALI, 0x2000, 6),
        TableRegion("d", 0, Word.VALI, (1 << 64) - 4, 8),
        TableRegion("e", 0, Word.VALI, 0x3000, 0),
    ]
    rows.append(TableRegion("has a space", 7, Word.VALI, 0x4000, 4))
    rows.append(TableRegion("thirteen-long", 7, Word.VALI, 0x5000, 4))
    name = (
        "has a name that is unfit for a file: expected at most 12 letters, digits, "
        "_, - and ."
    )
    assert check_regions(rows) == [
        [],
        ["overlaps row 0 (a)"],
        ["is not valid: 0x494e5641"],
        [
            "is valid and has no name: firmware makes no file of it",
            "has 6 bytes, no multiple of 4",
        ],
        ["wraps around the end of memory"],
        ["has no bytes"],
        [name],
        [name, "has number 7, as row 6 has"],
    ]


def test_old_table() -> None:
    rows = [("KELF_HEADER", 0x80000000, 27880), ("KLOGBUF", 0x90000000, 0x80000)]
    table = parse_old_table(write_old(rows), "old")
    assert [(it.name, it.address, it.size) for it in table.regions] == rows
    assert all(region.is_valid for region in table.regions)
    with pytest.raises(FormatError, match="not the oldest layout"):
        parse_old_table(write_toc(), "toc")


regions = st.builds(
    TableRegion,
    st.text(
        st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=15
    ),
    st.integers(0, 2**32 - 1),
    st.sampled_from(list(Word)),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)


@given(st.lists(regions, max_size=5))
def test_round_trip(rows: list[TableRegion]) -> None:
    data = b"".join(map(pack_region, rows))
    assert parse_regions(data, len(rows), "x") == rows
    check_regions(rows)
