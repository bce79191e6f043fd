# SPDX-License-Identifier: GPL-2.0-or-later
"""Physical memory: reading it, joining it, and recording what was read."""

import math
import os
from collections.abc import Iterable, Sequence
from itertools import pairwise, repeat

import pytest
from drgn import FaultError
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import BudgetExceededError, NotCapturedError
from kmemdump.memory.physical import PAGE_SIZE, FileMemory, JoinedMemory, PageMemory
from kmemdump.memory.ranges import Extent, Range
from kmemdump.memory.reading import Budget, block_ranges
from kmemdump.memory.recorder import Recorder
from kmemdump.memory.spans import BLOCK_SIZE


class Bytes:
    """Memory of (address, data) pieces, which counts how often it is read."""

    def __init__(self, *pieces: tuple[int, bytes], name: str = "bytes") -> None:
        self.pieces = pieces
        self.name = name
        self.reads: list[tuple[int, int]] = []
        self.closed = False

    @property
    def ranges(self) -> Sequence[Range]:
        return [Range(address, len(data)) for address, data in self.pieces]

    def read(self, address: int, size: int) -> bytes:
        self.reads.append((address, size))
        for start, data in self.pieces:
            if start <= address and address + size <= start + len(data):
                return data[address - start :][:size]
        raise NotCapturedError(f"{self.name} does not hold {address:#x}")

    def close(self) -> None:
        self.closed = True


def numbered(pages: int) -> bytes:
    return b"".join(bytes([i % 251]) * BLOCK_SIZE for i in range(pages * 8))


def recorder(pages: int = 16) -> Recorder:
    return Recorder(Bytes((0, numbered(pages))))


def read(recorder: Recorder, address: int, size: int) -> bytes:
    return recorder.read(address, size, 0, True)


def read_all(recorder: Recorder, addresses: Iterable[int]) -> None:
    for address in addresses:
        read(recorder, address, 8)


# A file


@pytest.fixture
def file_memory(tmp_path):
    path = tmp_path / "ram"
    path.write_bytes(b"header" + b"a" * 100 + b"b" * 50)
    fd = os.open(path, os.O_RDONLY)
    memory = FileMemory(fd, [Extent(0x2000, 50, 106), Extent(0x1F9C, 100, 6)], "ram")
    yield memory
    memory.close()


def test_file(file_memory):
    assert file_memory.ranges == [Range(0x1F9C, 150)]
    assert file_memory.read(0x1FFE, 4) == b"aabb"
    assert file_memory.read(0x2031, 1) == b"b"
    assert file_memory.read(0x2000, 0) == b""


@pytest.mark.parametrize("address", [0, 0x1F9B, 0x2032, 1 << 63, (1 << 64) - 1])
def test_file_that_does_not_hold_it(file_memory, address):
    with pytest.raises(NotCapturedError, match=f"^ram does not hold {address:#x}$"):
        file_memory.read(address, 1)


def test_file_that_holds_a_part_of_it(file_memory):
    with pytest.raises(NotCapturedError, match="ram does not hold 0x2032"):
        file_memory.read(0x2030, 3)


def test_file_that_is_truncated_meanwhile(tmp_path, file_memory):
    os.truncate(tmp_path / "ram", 110)
    assert file_memory.read(0x2003, 1) == b"b"
    with pytest.raises(NotCapturedError, match="ram ends at or before offset 0x6e"):
        file_memory.read(0x2003, 2)


def test_file_that_cannot_be_read(tmp_path):
    memory = FileMemory(os.open(tmp_path, os.O_RDONLY), [Extent(0, 10, 0)], "folder")
    with pytest.raises(NotCapturedError, match=r"^folder: cannot read 0x0: "):
        memory.read(0, 1)
    memory.close()
    memory.close()


def test_offsets_of_another_process(tmp_path):
    """Addresses for offsets go up to 2^64, which pread() does not."""
    path = tmp_path / "ram"
    path.write_bytes(b"x")
    fd = os.open(path, os.O_RDONLY)
    memory = FileMemory(fd, [Extent(0, 10, (1 << 64) - 5)], "mem")
    with pytest.raises(NotCapturedError, match="cannot read"):
        memory.read(0, 1)
    memory.close()


# Pages, and several memories


def test_pages():
    memory = PageMemory({1: b"a" * PAGE_SIZE, 2: b"b" * PAGE_SIZE, 9: bytes(PAGE_SIZE)})
    assert memory.ranges == [
        Range(PAGE_SIZE, 2 * PAGE_SIZE),
        Range(9 * PAGE_SIZE, PAGE_SIZE),
    ]
    assert memory.read(2 * PAGE_SIZE - 1, 2) == b"ab"
    with pytest.raises(NotCapturedError, match="0x3000 was not read"):
        memory.read(3 * PAGE_SIZE - 1, 2)


def test_the_first_memory_that_holds_it_gives_it():
    early = Bytes((0x1000, b"early"), name="early")
    late = Bytes((0x1000, b"later"), (0x5000, b"more"), name="late")
    memory = JoinedMemory(early, late)
    assert memory.ranges == [Range(0x1000, 5), Range(0x5000, 4)]
    assert memory.read(0x1000, 5) == b"early"
    assert memory.read(0x5000, 4) == b"more"
    # The first is what a person named; the others are what belongs to it.
    with pytest.raises(NotCapturedError, match="early does not hold 0x9000"):
        memory.read(0x9000, 4)
    memory.close()
    assert early.closed
    assert late.closed


def test_each_memory_holds_a_part():
    memory = JoinedMemory(
        Bytes((0, b"a" * PAGE_SIZE)), Bytes((PAGE_SIZE, b"b" * PAGE_SIZE))
    )
    assert memory.read(PAGE_SIZE - 2, 4) == b"aabb"
    assert memory.read(0, 2 * PAGE_SIZE) == b"a" * PAGE_SIZE + b"b" * PAGE_SIZE
    with pytest.raises(NotCapturedError):
        memory.read(PAGE_SIZE, PAGE_SIZE + 1)


def test_no_memory():
    assert JoinedMemory().ranges == []
    with pytest.raises(NotCapturedError, match="nothing holds 0x10"):
        JoinedMemory().read(16, 1)


@given(st.sets(st.integers(0, 100)))
def test_block_ranges(blocks):
    ranges = block_ranges(blocks)
    covered = [
        block
        for item in ranges
        for block in range(item.start // BLOCK_SIZE, item.end // BLOCK_SIZE)
    ]
    assert covered == sorted(blocks)
    assert all(left.end < right.start for left, right in pairwise(ranges))


# Recording


def test_what_was_read_is_recorded_by_the_block():
    rec = recorder()
    with rec.reading() as reading:
        assert read(rec, 700, 4) == b"\1" * 4
        assert read(rec, 5 * BLOCK_SIZE - 1, 2) == b"\4\5"
    assert reading.blocks == {1, 4, 5}
    assert reading.ranges == [
        Range(BLOCK_SIZE, BLOCK_SIZE),
        Range(4 * BLOCK_SIZE, 2 * BLOCK_SIZE),
    ]
    assert reading.reads == 2


def test_a_read_over_pages():
    rec = recorder()
    with rec.reading() as reading:
        data = read(rec, PAGE_SIZE - 10, 2 * PAGE_SIZE)
    assert data == numbered(4)[PAGE_SIZE - 10 :][: 2 * PAGE_SIZE]
    assert reading.blocks == set(range(7, 24))


def test_a_page_is_read_once():
    memory = Bytes((0, numbered(2)))
    rec = Recorder(memory)
    with rec.reading() as first:
        read(rec, 0, 8)
        read(rec, 1000, 8)
    with rec.reading() as second:
        read(rec, 0, 8)
    assert memory.reads == [(0, PAGE_SIZE)]
    assert first.blocks == {0, 1}
    assert second.blocks == {0}


def test_answers_see_one_state_of_a_page():
    memory = Bytes((0, b"then" * 1024))
    rec = Recorder(memory)
    assert read(rec, 0, 4) == b"then"
    memory.pieces = ((0, b"now!" * 1024),)
    assert read(rec, 4, 4) == b"then"
    assert rec.recording().read(0, 4) == b"then"
    with pytest.raises(NotCapturedError):
        rec.recording().read(PAGE_SIZE, 1)


def test_what_is_read_outside_of_a_reading_is_not_recorded():
    rec = recorder()
    read(rec, 0, 8)
    with rec.reading() as reading:
        pass
    read(rec, 600, 8)
    assert reading.blocks == set()
    assert rec.recording().ranges == [Range(0, PAGE_SIZE)]


def test_whole_pages():
    rec = recorder()
    with rec.reading() as reading:
        read(rec, PAGE_SIZE + 600, 8)
    assert rec.whole_pages(reading.blocks) == set(range(8, 16))
    assert rec.whole_pages({800}) == {800}  # Not read, so not known to be there.


def test_readings_do_not_nest():
    rec = recorder()
    with (
        rec.reading(),
        pytest.raises(RuntimeError, match="do not nest"),
        rec.reading(),
    ):
        pass
    with rec.reading():
        pass


def test_memory_that_is_not_there():
    rec = Recorder(Bytes((0, numbered(1)), name="the core"))
    with rec.reading() as reading:
        with pytest.raises(FaultError, match="the core does not hold 0x1008") as raised:
            read(rec, PAGE_SIZE + 8, 8)
        with pytest.raises(FaultError):
            read(rec, 9 * PAGE_SIZE, 8)
    assert raised.value.address == PAGE_SIZE + 8
    assert reading.missing == PAGE_SIZE + 8  # The first.
    assert reading.blocks == set()


def test_a_part_of_a_page():
    """A core image holds blocks, not pages."""
    rec = Recorder(Bytes((BLOCK_SIZE, b"x" * 2 * BLOCK_SIZE)))
    with rec.reading() as reading:
        assert read(rec, 2 * BLOCK_SIZE - 1, 2) == b"xx"
        with pytest.raises(FaultError):
            read(rec, 0, 8)
        with pytest.raises(FaultError):
            read(rec, 3 * BLOCK_SIZE - 1, 2)
    assert reading.blocks == {1, 2}
    assert reading.reads == 1


# Budgets


def test_a_budget_of_reads():
    rec = recorder()
    with (
        pytest.raises(BudgetExceededError, match="more than 5000 reads"),
        rec.reading(Budget(reads=5000)) as reading,
    ):
        read_all(rec, repeat(16))  # A list that loops.
    assert reading.reads < 6100


def test_a_budget_of_reads_of_parts_of_pages():
    rec = Recorder(Bytes((0, b"x" * BLOCK_SIZE)))
    with (
        pytest.raises(BudgetExceededError, match="more than 50 reads"),
        rec.reading(Budget(reads=50)),
    ):
        read_all(rec, repeat(16))


def test_a_budget_of_bytes():
    rec = recorder(64)
    with (
        pytest.raises(BudgetExceededError, match="more than 65536 bytes"),
        rec.reading(Budget(bytes=65536)),
    ):
        read_all(rec, range(0, 64 * PAGE_SIZE, 8))


def test_a_budget_of_seconds(monkeypatch):
    """It is CPU time: on a busy host, a question takes longer, and is answered."""
    now, cpu = 1000.0, 1.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("time.thread_time", lambda: cpu)
    rec = recorder()
    with rec.reading(Budget(seconds=2.5)) as reading:
        read(rec, 0, 8)
        now += 20
        read(rec, 5 * PAGE_SIZE, 8)
        cpu += 3
        with pytest.raises(BudgetExceededError, match=r"more than 2\.5 s of CPU time$"):
            read(rec, 6 * PAGE_SIZE, 8)
    assert reading.seconds == 20


@pytest.mark.parametrize(("patience", "most"), [(math.inf, 25), (4.0, 4), (90.0, 25)])
def test_a_question_that_waits(monkeypatch, patience, most):
    """As for a disk that is gone: no CPU time is spent."""
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    rec = recorder()
    with rec.reading(Budget(seconds=2.5, patience=patience)):
        now += most
        read(rec, 0, 8)
        now += 0.5
        with pytest.raises(BudgetExceededError, match=f"more than {most} s$"):
            read(rec, 5 * PAGE_SIZE, 8)


def test_a_budget_is_not_forgotten_by_who_catches_the_error():
    rec = recorder()
    with rec.reading(Budget(reads=10)):
        with pytest.raises(BudgetExceededError):
            read_all(rec, repeat(0))
        for _ in range(3):
            with pytest.raises(BudgetExceededError):
                read(rec, 0, 8)
    assert read(rec, 0, 8) == bytes(8)  # The next question has its own.


@given(
    st.lists(
        st.tuples(st.integers(0, 6 * PAGE_SIZE), st.integers(1, 3 * PAGE_SIZE)),
        max_size=12,
    ),
    st.lists(st.integers(0, 8 * 9), max_size=6),
)
def test_recording_is_enough_to_read_the_same_again(wanted, holes):
    """The promise that core images stand on."""
    whole = numbered(9)
    pieces = [
        (block * BLOCK_SIZE, whole[block * BLOCK_SIZE :][:BLOCK_SIZE])
        for block in range(9 * 8)
        if block not in holes
    ]
    memory = JoinedMemory(*(Bytes(piece) for piece in pieces))
    page_wise = Recorder(
        Bytes(*((item.start, whole[item.start : item.end]) for item in memory.ranges))
    )
    answers: dict[tuple[int, int], bytes] = {}
    with page_wise.reading() as reading:
        for address, size in wanted:
            try:
                answers[address, size] = read(page_wise, address, size)
            except FaultError:
                continue
    core = JoinedMemory(
        *(Bytes((item.start, whole[item.start : item.end])) for item in reading.ranges)
    )
    again = Recorder(core)
    for (address, size), data in answers.items():
        assert data == whole[address : address + size]
        assert read(again, address, size) == data
