# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinfo backend."""

import pytest

from kmemdump.backends.kinfo import KinfoBackend, erase_kinfo
from kmemdump.errors import BackendError
from kmemdump.formats.kinfo import Kinfo, KinfoLayout, parse_kinfo
from kmemdump.memory.ranges import Range, Region
from rigs.machine import FakeMachine
from rigs.writers.kinfo import IMAGE, LAYOUTS, write_kinfo

WHERE = Range(0x80300000, 4096)


def facts(layout: str) -> Kinfo:
    return Kinfo(
        KinfoLayout(layout),
        {},
        123456,
        16384,
        "6.12.9-android",
        "",
        (1, 1, 0, 1),
        (512, 64, 56, 600),
        (1, 0x140, 0x1A8),
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str) -> None:
    machine = FakeMachine()
    backend = KinfoBackend(machine, WHERE, facts(layout))
    data = write_kinfo(layout)
    wanted = parse_kinfo(data, "x").addresses
    regions = [
        Region(3 + i, name, IMAGE[name], 8)
        for i, name in enumerate(wanted)
        if name in IMAGE
    ]
    for region in regions:
        backend.register(region)
    assert machine.read(WHERE.start, len(data)) == data
    for region in regions:
        backend.unregister(region)
    empty = write_kinfo(layout, image=dict.fromkeys(IMAGE, 0))
    assert machine.read(WHERE.start, len(data)) == empty


def test_only_the_checksum_is_wrong_in_between() -> None:
    machine = FakeMachine()
    backend = KinfoBackend(machine, WHERE, facts("series"))
    before = bytearray(machine.data)
    machine.stores = []
    backend.register(Region(3, "_stext", 0x80010000, 8))
    torn = FakeMachine()
    torn.data = before
    seen = []
    for address, data in machine.stores:
        torn.put(address, data)
        kinfo = parse_kinfo(torn.read(*(WHERE.start, WHERE.size)), "torn")
        seen.append((kinfo.addresses["_stext"], kinfo.checksum_ok))
    assert seen == [(0x80010000, False), (0x80010000, True)]


def test_refused() -> None:
    machine = FakeMachine()
    with pytest.raises(BackendError, match="has 472 bytes, expected at most 471"):
        KinfoBackend(machine, Range(WHERE.start, 471), facts("series"))
    backend = KinfoBackend(machine, WHERE, facts("android-v1"))
    backend.register(Region(3, "_stext", 1, 8))
    for name, problem in (
        ("jiffies", "kinfo has no field for jiffies"),
        ("_stext", "kinfo has _stext already"),
        ("_text", "android-v1: has no field for _text"),
    ):
        with pytest.raises(BackendError, match=problem):
            backend.register(Region(4, name, 1, 8))
    with pytest.raises(BackendError, match="id 9 is not registered"):
        backend.unregister(Region(9, "", 0, 0))
    assert parse_kinfo(machine.read(WHERE.start, 4096), "x").addresses["_stext"] == 1


def test_erased() -> None:
    machine = FakeMachine()
    KinfoBackend(machine, WHERE, facts("series"))
    assert erase_kinfo(machine, WHERE)
    before = bytes(machine.data)
    assert not erase_kinfo(machine, WHERE)
    assert machine.data == before
