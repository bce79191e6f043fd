# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of the ORC unwinder, found by their contents."""

import hashlib
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.formats.orc import find_orc

TEXT = range(0x1000, 0x80000)
AT = 0x90014
COUNT = 9000


def image(header: bytes, *, count: int = COUNT, last: int = 0x79) -> bytes:
    """A kernel's image: code, zeros, the tables, more zeros, the code of its start."""
    chance = random.Random(7)
    start = AT + 10 * count + 0x4000
    places = sorted(chance.sample(TEXT, count - 10)) + [
        start + 16 * i for i in range(10)
    ]
    data = (
        bytearray(chance.randbytes(TEXT.stop)).ljust(AT - len(header), b"\0") + header
    )
    data += b"".join(struct.pack("<i", it - AT - 4 * i) for i, it in enumerate(places))
    entry = struct.pack("<hhBB", 16, -16, 0x45, last & 0x0F)
    return bytes(data + entry * count + bytes(0x8000))


HASH = hashlib.sha1(b"orc").digest()


@pytest.mark.parametrize(
    ("before", "header"),
    [(HASH, AT - 20), (bytes(20), None), (struct.pack("<5I", 1, 2, 3, 4, 5), None)],
)
def test_found_where_they_are(before, header):
    found = find_orc(image(before), TEXT)
    assert found == (header, AT, AT + 4 * COUNT, AT + 10 * COUNT)


def test_what_is_not_proven():
    data = image(HASH)
    assert find_orc(data[: AT + 10 * COUNT - 1], TEXT) is None  # Cut short.
    assert find_orc(image(HASH, count=2000), TEXT) is None  # Too few.
    wrong = bytearray(data)
    wrong[AT + 4 * COUNT + 5 + 6 * 77] = 0x80  # A bit that no entry has.
    assert find_orc(bytes(wrong), TEXT) is None
    assert find_orc(bytes(1 << 20), range(1 << 20)) is None
    assert find_orc(b"", TEXT) is None


@given(st.binary(max_size=4096), st.integers(0, 4096), st.integers(0, 4096))
def test_any_bytes(data, start, stop):
    assert find_orc(data, range(start, stop)) is None
