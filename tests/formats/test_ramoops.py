# SPDX-License-Identifier: GPL-2.0-or-later
"""Zones of ramoops."""

import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError, UnsupportedError
from kmemdump.formats import ramoops_ecc
from kmemdump.formats.ramoops import parse_record, parse_zone
from kmemdump.formats.ramoops_ecc import find_parity, repair
from rigs.writers.ramoops import add_parity, write_zone


@given(st.binary(max_size=100), st.integers(0, 100))
def test_ring(text: bytes, start: int) -> None:
    zone = parse_zone(write_zone(text, 112, start=min(start, len(text))), "zone")
    assert zone.text == text


def test_kind() -> None:
    data = write_zone(b"trace", 200, kind=0x60C00)
    assert parse_zone(data, "zone").text == b"trace"
    with pytest.raises(FormatError, match="expected 0x43474244"):
        parse_zone(write_zone(b"text", 200, kind=0x1000000), "zone")


def test_parity_leaves_less_room() -> None:
    # 4096 - 12 = 4084; ceil(4068 / 144) = 29 blocks; 4084 - 30 * 16 = 3604.
    data = write_zone(b"x" * 3604, 4096, parity=480)
    assert len(parse_zone(data, "zone", ecc_size=16).text) == 3604
    with pytest.raises(FormatError, match="expected them within 3604"):
        parse_zone(write_zone(b"x" * 3605, 4096), "zone", ecc_size=16)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"DBGC", "4 bytes"),
        (bytes(12), "signature 0x00000000"),
        (b"DBGC" + b"\1\0\0\0" + bytes(20), "0 bytes starting at 1"),
        (b"DBGC" + bytes(4) + b"\x15" + bytes(23), "21 bytes starting at 0"),
    ],
)
def test_refused(data: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        parse_zone(data, "zone")


def damaged(zone: bytes, places: set[int]) -> bytes:
    data = bytearray(zone)
    for at in places:
        data[at] ^= 0x5A
    return bytes(data)


@pytest.mark.parametrize("parity", [8, 16, 32])
def test_errors_are_corrected(parity: int) -> None:
    text = bytes(range(256)) * 2
    zone = add_parity(write_zone(text, 2048, start=100, parity=parity), parity)
    assert find_parity(zone) == (2048, parity)
    assert find_parity(zone + b"x" * 3000) == (2048, parity)
    assert repair(zone, parity, "zone").data == zone
    # As many as can be corrected, in the header, in a block and in its parity.
    half = parity // 2
    places = {*range(4, 4 + half // 2), *range(20, 20 + half), *range(500, 504)}
    repaired = repair(damaged(zone, places), parity, "zone")
    assert repaired.data[: 12 + 512] == zone[: 12 + 512]
    assert (repaired.corrected, repaired.lost) == (len(places), 0)
    assert parse_zone(repaired.data, "zone", ecc_size=parity).text == text


def test_more_errors_than_parity() -> None:
    zone = add_parity(write_zone(b"x" * 400, 1024, parity=200), 16)
    repaired = repair(damaged(zone, set(range(150, 170))), 16, "zone")
    assert (repaired.corrected, repaired.lost) == (0, 1)
    with pytest.raises(FormatError, match="its header has more errors"):
        repair(damaged(zone, set(range(12))), 16, "zone")
    for parity in (0, -1, 128, 1000):
        with pytest.raises(FormatError, match="cannot be a zone with"):
            repair(zone, parity, "zone")


def test_zone_without_parity() -> None:
    for text in (b"", b"some"):
        zone = write_zone(text, 4096)
        assert find_parity(zone) == (4096, 0)


def test_without_reedsolo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reedsolo", None)
    ramoops_ecc._codec.cache_clear()
    with pytest.raises(UnsupportedError, match=r"'kmemdump\[ramoops\]'"):
        find_parity(bytes(4096))


def test_record() -> None:
    text = b"Panic#1 Part1\n<6>words\n"
    deflate = zlib.compressobj(wbits=-15)
    packed = deflate.compress(text) + deflate.flush()
    for head, data in ((b"-C", packed), (b"-D", text), (b"", text)):
        zone = parse_zone(write_zone(b"====12.5" + head + b"\n" + data, 256), "zone")
        record = parse_record(zone)
        assert record is not None
        assert (record.seconds, record.text) == (12.5, text.decode())
    assert parse_record(parse_zone(write_zone(b"console", 64), "zone")) is None
    for data in (b"nonsense", packed[:-3]):
        zone = parse_zone(write_zone(b"====12.5-C\n" + data, 256), "zone")
        with pytest.raises(FormatError, match="compressed"):
            parse_record(zone)
