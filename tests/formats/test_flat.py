# SPDX-License-Identifier: GPL-2.0-or-later
"""Flattened files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats.flat import FlatFile, parse_flat
from rigs.synthetic import flat


def parse(data: bytes) -> FlatFile:
    return parse_flat(
        lambda offset, count: data[offset : offset + count], len(data), "f"
    )


pieces = st.lists(
    st.tuples(st.integers(0, 100), st.binary(min_size=1, max_size=60)), max_size=12
)


@given(pieces, st.integers(0, 170), st.integers(0, 170))
def test_what_came_later_wins(records, offset, count):
    expected = bytearray(max((at + len(data) for at, data in records), default=0))
    for at, data in records:
        expected[at : at + len(data)] = data
    file = parse(flat(records))
    assert file.size == len(expected)
    assert file.read(0, 1000) == expected
    assert file.read(offset, count) == expected[offset : offset + count]


def test_end_is_missing():
    data = flat([(0, b"abcd"), (4, b"efgh")], end=False)
    assert parse(data).read(0, 100) == b"abcdefgh"
    assert parse(data[:-2]).read(0, 100) == b"abcdef"
    assert parse(data[:-6]).read(0, 100) == b"abcd"


def test_large_hole_costs_nothing():
    file = parse(flat([(1 << 62, b"x")]))
    assert file.size == (1 << 62) + 1
    assert file.read(1 << 40, 3) == bytes(3)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "starts with b''"),
        (b"makedumpfile" + bytes(4084), "type 0, version 0"),
        (flat([(-7, b"x")]), r"f\+0x1000: record of 1 bytes"),
        (flat([(7, b"")]), "record of 0 bytes"),
    ],
)
def test_refused(data, problem):
    with pytest.raises(FormatError, match=problem):
        parse(data)


@given(st.binary(max_size=100), st.integers(0, 1 << 63))
def test_any_bytes(data, offset):
    try:
        file = parse(flat([], end=False) + data)
    except FormatError:
        return
    assert len(file.read(offset, 100)) <= 100
