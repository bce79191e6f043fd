# SPDX-License-Identifier: GPL-2.0-or-later
"""LiME files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats.lime import LimeRange, parse_lime
from rigs.synthetic import lime


def parse(data: bytes) -> list[LimeRange]:
    return parse_lime(
        lambda offset, count: data[offset : offset + count], len(data), "l"
    )


def test_ranges_in_the_order_of_the_file():
    data = lime([(0x100000, b"a" * 5000), (0x1000, b"b" * 100)])
    assert parse(data) == [LimeRange(0x100000, 5000, 32), LimeRange(0x1000, 100, 5064)]


def test_file_that_ends_early():
    data = lime([(0x1000, b"a" * 64), (0x9000, b"b" * 64)])
    assert parse(data[:-10]) == [LimeRange(0x1000, 64, 32), LimeRange(0x9000, 54, 128)]
    assert parse(data[:100]) == [LimeRange(0x1000, 64, 32)]
    assert parse(data[:40]) == [LimeRange(0x1000, 8, 32)]
    assert parse(data[:32]) == []


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"EMiL", "4 bytes, expected a LiME header"),
        (b"EMiX" + bytes(28), "magic 45 4d 69 58"),
        (b"EMiL\x02" + bytes(27), "version 2"),
        (lime([(0x1000, b"x")]) + b"y" * 32, r"l\+0x21: magic 79"),
        (b"EMiL\1\0\0\0" + b"\2" + bytes(23), "ends before it starts"),
    ],
)
def test_refused(data, problem):
    with pytest.raises(FormatError, match=problem):
        parse(data)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(data, good_start):
    if good_start:
        data = lime([(0x1000, b"abc")]) + data
    try:
        ranges = parse(data)
    except FormatError:
        return
    for item in ranges:
        assert 0 < item.size <= len(data) - item.offset


@given(st.lists(st.tuples(st.integers(0, 1 << 63), st.binary(min_size=1)), max_size=9))
def test_round_trip(ranges):
    data = lime(ranges)
    assert [
        (item.address, data[item.offset : item.offset + item.size])
        for item in parse(data)
    ] == ranges
