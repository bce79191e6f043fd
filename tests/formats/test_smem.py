# SPDX-License-Identifier: GPL-2.0-or-later
"""
SMEM. What is refused here, and how, is what Linux's driver says about the same bytes;
the error numbers are those that it printed or returned.
"""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats.smem import HOST_ANY, Smem, parse_smem
from rigs.writers import put
from rigs.writers.smem import ANY, Part, write_smem

BASE = 0x86000000
DATA = bytes(range(200))


def parse(data: bytes, **settings: object) -> Smem:
    return parse_smem(bytes(data), "smem", address=BASE, **settings)


def get(smem: Smem, host: int, number: int) -> bytes:
    item = smem.lookup(host, number)
    start = item.address - BASE
    return smem.data[start : start + item.size]


def good() -> bytearray:
    return write_smem(
        [
            Part(ANY, ANY, {8: b"eight", 602: DATA}, {9: b"nine", 10: b"ten!!!!!"}),
            Part(0, 1, {8: b"private"}),
            Part(2, 0, {}, {77: b"cached"}, cacheline=64),
            Part(3, 4, {8: b"not ours"}),
        ]
    )


def test_lookup() -> None:
    smem = parse(good())
    assert smem.version == 12
    assert smem.limit == 700
    assert get(smem, HOST_ANY, 602) == DATA
    assert get(smem, HOST_ANY, 8) == b"eight"
    assert get(smem, HOST_ANY, 9) == b"nine"
    assert get(smem, HOST_ANY, 10) == b"ten!!!!!"
    assert get(smem, 1, 8) == b"private"
    assert get(smem, 2, 77) == b"cached"
    assert get(smem, 3, 8) == b"eight"  # No partition of ours: the global one.
    with pytest.raises(FormatError, match="ENOENT"):
        smem.lookup(1, 602)  # No way back from a private partition.
    with pytest.raises(FormatError, match=r"below 700 .*EINVAL"):
        smem.lookup(HOST_ANY, 700)


def test_padding_behind_header() -> None:
    smem = parse(write_smem([Part(ANY, ANY, {8: b"a", 9: b"b"}, padding_header=24)]))
    assert get(smem, HOST_ANY, 9) == b"b"


def test_no_info_block() -> None:
    smem = parse(write_smem([Part(ANY, ANY, {8: b"x"})], items=None))
    assert smem.limit == 512
    with pytest.raises(FormatError, match="below 512"):
        smem.lookup(HOST_ANY, 602)


def test_heap() -> None:
    data = write_smem(version=11, heap={8: b"one", 511: b"two"})
    smem = parse(data)
    assert get(smem, HOST_ANY, 511) == b"two".ljust(8, b"\0")
    with pytest.raises(FormatError, match="ENXIO"):
        smem.lookup(HOST_ANY, 9)
    with pytest.raises(FormatError, match="EINVAL"):
        smem.lookup(HOST_ANY, 602)
    put(data, 0xD0 + 16 * 8 + 12, 4, 0x60000003)
    with pytest.raises(FormatError, match="0x60000000, which is not known"):
        parse(data).lookup(HOST_ANY, 8)
    smem = parse(data, auxiliary={0x60000000: 0x7000})
    assert smem.lookup(HOST_ANY, 8).address == 0x60000000 + 0x20D0
    put(data, 0xD0 + 16 * 8 + 8, 4, 0x6000)
    with pytest.raises(FormatError, match="end past"):
        parse(data, auxiliary={0x60000000: 0x7000}).lookup(HOST_ANY, 8)


def test_heap_with_partitions() -> None:
    part = Part(0, 5, {8: b"private"})
    smem = parse(write_smem([part], version=11, heap={8: b"heap"}))
    assert get(smem, 5, 8) == b"private"
    assert get(smem, 6, 8).rstrip(b"\0") == b"heap"


GLOBAL = 0x4000  # Where the writer puts the first partition.
TABLE = 0x40000 - 4096


@pytest.mark.parametrize(
    ("at", "size", "value", "problem"),
    [
        (0xC0, 4, 0, "initialized is 0x0 and reserved 0x0"),
        (0xCC, 4, 1, "reserved 0x1"),
        (0x5C, 4, 13 << 16, "version 0xd0000"),
        (TABLE, 4, 0, "ENOENT"),
        (TABLE + 4, 4, 2, "table of version 2"),
        (TABLE + 8, 4, 85, "85 partitions, expected at most 84"),
        (TABLE + 32 + 12, 2, 0xFFFD, "both hosts 0xfffe"),
        (TABLE + 32, 4, 0x3F000, "all in the region"),
        (TABLE + 32 + 4, 4, 16, "expected 32 or more"),
        (GLOBAL, 1, 0, r"expected 24 50 52 54 \(\$PRT\)"),
        (GLOBAL + 4, 2, 1, "host0 is 0x1, expected 0xfffe"),
        (GLOBAL + 6, 2, 1, "host1 is 0x1"),
        (GLOBAL + 8, 4, 0x4000, "size is 0x4000, expected 0x8000"),
        (GLOBAL + 12, 4, 0x8001, "uncached items end at 0x8001"),
        (TABLE + 32 + 2 * 48 + 12, 2, 1, "two partitions for host 1"),
        (GLOBAL + 0x8000, 1, 0, r"\$PRT"),
    ],
)
def test_refused(at: int, size: int, value: int, problem: str) -> None:
    data = good()
    put(data, at, size, value)
    with pytest.raises(FormatError, match=problem) as caught:
        parse(data)
    assert str(caught.value).startswith("smem")


@pytest.mark.parametrize(
    ("at", "size", "value", "number", "problem"),
    [
        (GLOBAL + 32, 2, 0, 602, "canary is 0x0000, expected 0xa5a5"),
        (GLOBAL + 32 + 4, 4, 0xFFFFFFF0, 8, "expected it in the partition"),
        (GLOBAL + 32 + 4, 4, 0xFFFFFFF0, 602, "an uncached item ends there"),
        (GLOBAL + 32 + 8, 2, 0xFFFF, 8, "0xffff of padding"),
        (GLOBAL + 16, 4, 0x8001, 10, "cached items end at 0x8001"),
        (GLOBAL + 0x8000 - 32, 2, 0, 9, "canary"),
        (GLOBAL + 16, 4, 0, 500, "canary"),
    ],
)
def test_damaged_items(
    at: int, size: int, value: int, number: int, problem: str
) -> None:
    data = good()
    put(data, at, size, value)
    with pytest.raises(FormatError, match=problem):
        parse(data).lookup(HOST_ANY, number)


def test_good_item_before_a_bad_one() -> None:
    data = good()
    put(data, GLOBAL + 16, 4, 0xFFFFFFFF)  # The cached list, not asked for.
    assert get(parse(data), HOST_ANY, 602) == DATA


def test_endless_cached_list() -> None:
    """Without a cache line, empty cached items lead nowhere."""
    data = good()
    put(data, TABLE + 32 + 16, 4, 0)
    start = GLOBAL + 0x8000 - 16
    put(data, GLOBAL + 8, 4, 0x8000 - 16)
    put(data, TABLE + 32 + 4, 4, 0x8000 - 16)
    put(data, GLOBAL + 16, 4, 32)
    put(data, start, 2, 0xA5A5, 9)
    put(data, start + 4, 4, 0)
    with pytest.raises(FormatError):
        parse(data).lookup(HOST_ANY, 601)


def store(data: bytearray, stores: tuple[tuple[int, bytes], ...]) -> None:
    for address, raw in stores:
        data[address - BASE : address - BASE + len(raw)] = raw


@pytest.mark.parametrize("host", [HOST_ANY, 1])
def test_allocate(host: int) -> None:
    data = good()
    plan = parse(data).allocate(host, 600, 333)
    for count in range(len(plan.stores)):
        torn = bytearray(data)
        store(torn, plan.stores[:count])
        with pytest.raises(FormatError, match="ENOENT"):
            parse(torn).lookup(host, 600)
    store(data, plan.stores)
    smem = parse(data)
    assert smem.lookup(host, 600) == plan.item
    assert plan.item.size == 333
    with pytest.raises(FormatError, match="EEXIST"):
        smem.allocate(host, 600, 8)


def test_allocated_as_the_writer_does() -> None:
    data = write_smem([Part(ANY, ANY, {8: b"x"})])
    store(data, parse(data).allocate(HOST_ANY, 602, 21).stores)
    assert data == write_smem([Part(ANY, ANY, {8: b"x", 602: bytes(21)})])


def test_allocate_in_the_heap() -> None:
    data = write_smem(version=11, heap={8: b"x"})
    plan = parse(data).allocate(HOST_ANY, 100, 20)
    store(data, plan.stores)
    expected = write_smem(
        version=11, heap={8: b"x", 100: bytes(20)}, heap_size=0x1000 - 24
    )
    assert data == expected
    with pytest.raises(FormatError, match="ENOMEM"):
        parse(data).allocate(HOST_ANY, 101, 0x1000)


@pytest.mark.parametrize(
    ("number", "size", "problem"),
    [
        (7, 8, "fixed"),
        (700, 8, "below 700"),
        (20, 0, "0 bytes"),
        (20, 0x8000, "ENOSPC"),
    ],
)
def test_allocate_refused(number: int, size: int, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        parse(good()).allocate(HOST_ANY, number, size)


def test_allocate_up_to_the_cached_items() -> None:
    data = write_smem([Part(ANY, ANY, {})])
    room = 0x8000 - 32 - 16
    with pytest.raises(FormatError, match="ENOSPC"):
        parse(data).allocate(HOST_ANY, 20, room + 8)
    store(data, parse(data).allocate(HOST_ANY, 20, room).stores)
    assert parse(data).lookup(HOST_ANY, 20).size == room


items = st.dictionaries(
    st.integers(0, 600), st.binary(min_size=1, max_size=40), max_size=9
)


@given(items, items, st.sampled_from([0, 16, 32, 64, 128]))
def test_round_trip(
    uncached: dict[int, bytes], cached: dict[int, bytes], cacheline: int
) -> None:
    if cacheline == 0:
        cached = {}  # What Linux computes for it leads past the end.
    cached = {number: it for number, it in cached.items() if number not in uncached}
    smem = parse(write_smem([Part(ANY, ANY, uncached, cached, cacheline=cacheline)]))
    found = {number: get(smem, HOST_ANY, number) for number in uncached | cached}
    assert found == uncached | cached


@given(st.data())
def test_damage(data: st.DataObject) -> None:
    """A changed region is accepted or refused; nothing is read outside of it."""
    region = good()
    for _ in range(data.draw(st.integers(1, 6))):
        where = data.draw(st.sampled_from([GLOBAL, GLOBAL + 0x7F80, TABLE, 0x40]))
        put(
            region,
            where + data.draw(st.integers(0, 127)),
            1,
            data.draw(st.integers(0, 255)),
        )
    lookups: list[Callable[[Smem], object]] = [
        lambda smem: smem.lookup(HOST_ANY, 601),  # Not there: walks all.
        lambda smem: get(smem, HOST_ANY, 602),
        lambda smem: smem.allocate(1, 20, 20),
    ]
    for lookup in lookups:
        try:
            lookup(parse(region))
        except FormatError:
            continue
