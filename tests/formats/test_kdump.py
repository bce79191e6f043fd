# SPDX-License-Identifier: GPL-2.0-or-later
"""kdump-compressed dumps: headers, page bitmaps and page descriptors."""

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats.kdump import Kdump, parse_kdump
from kmemdump.formats.page_bitmap import PageBitmap
from rigs.synthetic import PAGE, kdump, note, vmcoreinfo

INFO = vmcoreinfo()
PAGES = {frame: bytes([frame & 255]) * PAGE for frame in (0, 1, 2, 9, 40000)}


def parse(data: bytes) -> Kdump:
    return parse_kdump(
        lambda offset, count: data[offset : offset + count], len(data), "k"
    )


def test_header():
    data = kdump(PAGES, info=INFO, notes=note(b"CORE", 1, b"abc"))
    dump = parse(data)
    assert (dump.machine, dump.page_size) == ("x86_64", PAGE)
    assert list(dump.ranges()) == [
        (0, 3 * PAGE),
        (9 * PAGE, PAGE),
        (40000 * PAGE, PAGE),
    ]
    assert dump.vmcoreinfo == INFO
    assert [(item.name, item.type, item.desc) for item in dump.notes] == [
        ("CORE", 1, b"abc")
    ]
    places = [
        dump.descriptor(lambda offset, count: data[offset : offset + count], frame)
        for frame in (*PAGES, 3, 40001, 1 << 50)
    ]
    assert None not in places[:5]
    assert places[5:] == [None] * 3
    assert [place.offset for place in places[:5]] == sorted(
        place.offset for place in places[:5]
    )


def test_old_versions_lack_the_later_fields():
    dump = parse(kdump(PAGES, info=INFO, version=2, notes=note(b"CORE", 1, b"abc")))
    assert (dump.vmcoreinfo, dump.notes) == (None, [])
    assert len(dump.pages) == len(PAGES)


def test_frames_past_the_end_do_not_count():
    small = {0: bytes(PAGE), 5: bytes(PAGE)}
    assert list(parse(kdump(small, max_frame=5)).ranges()) == [(0, PAGE)]


def test_a_bitmap_that_claims_more_than_the_file_has():
    """Two million ranges of which none can be read: a small file, but much work."""
    data = bytearray(kdump(PAGES, max_frame=1 << 22))
    at = 2 * PAGE + (1 << 19)
    data[at : at + (1 << 19)] = b"\x55" * (1 << 19)
    dump = parse(bytes(data))
    assert len(dump.pages) == 1 << 21
    assert len(list(dump.ranges())) <= (len(data) - dump.descriptors) // 24
    end = dump.end(lambda offset, count: bytes(data[offset : offset + count]))
    assert end >= dump.descriptors + 24 * (1 << 21)


def test_aarch64():
    assert parse(kdump(PAGES, machine=b"aarch64")).machine == "aarch64"
    assert parse(kdump(PAGES, machine=b"Unknown")).machine is None


def change(offset: int, format_: str, value: int) -> bytes:
    data = bytearray(kdump(PAGES, info=INFO))
    struct.pack_into(format_, data, offset, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "the header should be"),
        (b"KDUMPX  " + bytes(500), "starts with b'KDUMPX  '"),
        (
            kdump(PAGES, machine=b"x\xff"),
            r"machine: b'x\\xff', expected a name",
        ),
        (kdump(PAGES, split=1), "makedumpfile --reassemble"),
        (change(428, "<i", 1000), "block_size"),
        (change(428, "<i", -1), "block_size"),
        (change(432, "<i", 0), "sub_hdr_size"),
        (change(436, "<I", 0xFFFFFFFF), "bitmap_blocks"),
        (change(436, "<I", 60000), "the page bitmap should be"),
        (change(PAGE + 96, "<Q", 1 << 60), "max_mapnr"),
        (change(PAGE + 40, "<Q", 1 << 60), "size_vmcoreinfo"),
        (change(PAGE + 32, "<Q", 1 << 60), "VMCOREINFO should be"),
        (change(PAGE + 56, "<Q", 1 << 60), "bytes of notes"),
        (kdump(PAGES, info=INFO)[:5000], "should be at"),
    ],
)
def test_refused(data, problem):
    with pytest.raises(FormatError, match=problem):
        parse(data)


def test_wrong_descriptor():
    data = bytearray(kdump(PAGES))
    dump = parse(bytes(data))

    def read(offset: int, count: int) -> bytes:
        return bytes(data[offset : offset + count])

    for offset, size in ((-1, 10), (5, 5000), (5, 0)):
        struct.pack_into("<qI", data, dump.descriptors, offset, size)
        with pytest.raises(FormatError, match="page 0x0 has"):
            dump.descriptor(read, 0)
    with pytest.raises(FormatError, match="the file ends"):
        dump.descriptor(lambda offset, count: b"", 0)


@given(st.binary(max_size=40), st.integers(0, 2 * PAGE - 41))
def test_any_bytes(data, offset):
    raw = bytearray(kdump(PAGES, info=INFO))
    raw[offset : offset + len(data)] = data
    try:
        dump = parse(bytes(raw))
    except FormatError:
        return
    for frame in PAGES:
        try:
            dump.descriptor(lambda at, count: bytes(raw[at : at + count]), frame)
        except FormatError:
            continue


@given(
    st.lists(st.sampled_from([b"\0" * 40, b"\xff" * 40, b"\x01", b"\x80", b"\x5a"]))
    .map(b"".join)
    .flatmap(lambda bits: st.sampled_from([bits, bits * 60])),
    st.integers(0, 7),
)
def test_bitmap(bits, cut):
    frames = max(len(bits) * 8 - cut, 0)
    members = [i for i in range(frames) if bits[i // 8] >> i % 8 & 1]
    bitmap = PageBitmap(lambda at, count: bits[at : at + count], frames)
    assert len(bitmap) == len(members)
    assert [frame for start, end in bitmap.runs() for frame in range(start, end)] == (
        members
    )
    for index, frame in list(enumerate(members))[:: max(len(members) // 50, 1)]:
        assert bitmap.index(frame) == index
    assert bitmap.index(frames) is None
    for frame in set(range(0, frames, 37)) - set(members):
        assert bitmap.index(frame) is None


def test_runs_and_counts_across_pieces():
    """A machine's bitmap is read a MiB at a time."""
    bits = bytearray(3 << 20)
    bits[(1 << 20) - 2 : (1 << 20) + 3] = b"\xff" * 5
    bits[(2 << 20) - 1] = 0x80  # A run that ends where a piece without members starts.
    bits[-1] = 0x80
    bitmap = PageBitmap(lambda at, count: bytes(bits[at : at + count]), len(bits) * 8)
    first = ((1 << 20) - 2) * 8
    second, last = (16 << 20) - 1, len(bits) * 8 - 1
    assert list(bitmap.runs()) == [
        (first, first + 40),
        (second, second + 1),
        (last, last + 1),
    ]
    assert [bitmap.index(it) for it in (first, first + 39, first + 40, last)] == [
        0,
        39,
        None,
        41,
    ]


@pytest.mark.slow
def test_a_bitmap_that_alternates_is_refused_soon():
    bits = b"\x55" * (1 << 19)
    bitmap = PageBitmap(lambda at, count: bits[at : at + count], 8 << 19)
    dump = replace(parse(kdump(PAGES)), pages=bitmap, held=1 << 30, room=1 << 30)
    with pytest.raises(FormatError, match="more than 2000000 ranges"):
        list(dump.ranges())


def test_pages_missing_in_a_dump_that_is_marked_incomplete():
    data = bytearray(kdump(PAGES, info=INFO, status=9))
    whole = parse(bytes(data))
    assert (whole.incomplete, whole.held) == (True, len(PAGES))
    at = whole.descriptors + 2 * 24
    data[at:] = bytes(len(data) - at)
    dump = parse(bytes(data))
    assert (len(dump.pages), dump.held) == (5, 2)
    assert list(dump.ranges()) == [(0, 2 * PAGE)]

    def read(offset: int, count: int) -> bytes:
        return bytes(data[offset : offset + count])

    assert dump.descriptor(read, 1) is not None
    assert dump.descriptor(read, 2) is None
    assert parse(bytes(data[: at + 5])).held == 2
    assert parse(bytes(data[: dump.descriptors])).held == 0
