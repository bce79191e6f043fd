# SPDX-License-Identifier: GPL-2.0-or-later
"""Android's ``debug_kinfo``."""

from dataclasses import replace

import pytest

from kmemdump.errors import FormatError
from kmemdump.formats.kinfo import Kinfo, KinfoLayout, pack_kinfo, parse_kinfo
from rigs.writers import put
from rigs.writers.kinfo import IMAGE, LAYOUTS, write_kinfo


@pytest.mark.parametrize("padding", [0, 3000])
@pytest.mark.parametrize("build_info", ["", "user-debug 42"])
@pytest.mark.parametrize("release", ["6.12.9-android", ""])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, release: str, build_info: str, padding: int) -> None:
    data = write_kinfo(layout, release=release, build_info=build_info)
    kinfo = parse_kinfo(data + bytes(padding), "kinfo")
    assert kinfo.layout.value == layout
    assert kinfo.checksum_ok
    assert kinfo.release == release
    assert kinfo.build_info == ("" if layout == "meminspect-v3" else build_info)
    assert kinfo.num_syms == 123456
    assert kinfo.thread_size == 16384
    assert kinfo.flags == (1, 1, 0, 1)
    assert kinfo.lengths == (512, 64, 56, 600)
    assert kinfo.modules == (1, 0x140, 0x1A8)
    for name, address in kinfo.addresses.items():
        assert address == IMAGE.get(name, 0)
    assert pack_kinfo(kinfo) == data


def test_series_that_forgets_the_relative_base() -> None:
    """As meminspect v2 and v3 do."""
    image = {**IMAGE, "kallsyms_relative_base": 0}
    for layout in ("series", "meminspect-v3"):
        data = write_kinfo(layout, image=image) + bytes(500)
        assert parse_kinfo(data, "kinfo").layout.value == layout


def test_wrong_checksum_is_told_and_not_refused() -> None:
    data = bytearray(write_kinfo("series"))
    put(data, 4, 4, 0)
    kinfo = parse_kinfo(bytes(data), "kinfo")
    assert not kinfo.checksum_ok
    assert kinfo.layout is KinfoLayout.SERIES


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "starts with , expected ff dd ee cc"),
        (bytes(472), "starts with 00 00 00 00"),
        (write_kinfo("series")[:200], "200 bytes fit none of the"),
        (write_kinfo("series")[:18] + b"\x20" + write_kinfo("series")[19:], "none"),
    ],
)
def test_refused(data: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        parse_kinfo(data, "kinfo")


def test_pack_refused() -> None:
    kinfo = Kinfo(KinfoLayout.ANDROID_V1, {"_text": 1})
    with pytest.raises(FormatError, match="android-v1: has no field for _text"):
        pack_kinfo(kinfo)
    with pytest.raises(FormatError, match="debug_kinfo"):
        pack_kinfo(replace(kinfo, addresses={"_stext": 1 << 64}))
