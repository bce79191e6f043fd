# SPDX-License-Identifier: GPL-2.0-or-later
"""What a recorder's budget costs, where a machine has ten thousand tasks."""

from itertools import count

import pytest
from drgn import FaultError

from kmemdump import Limits, run_bounded
from kmemdump.errors import BudgetExceededError
from kmemdump.memory import recorder as subject
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import Range
from kmemdump.memory.reading import Budget
from kmemdump.memory.recorder import Recorder

PARTS = 3000


class Zeros:
    """Memory that is zeros, of which each page can be read whole."""

    ranges = (Range(0, 1 << 40),)

    def read(self, address, size):
        return bytes(size)

    def close(self):
        pass


def put(recorder, parts=PARTS):
    """Read a page of each of many parts, in 40 places."""
    assert recorder.begin_loop("tasks")
    for number in range(parts):
        assert recorder.begin_part(("tasks", number))
        for place in range(40):
            recorder.read(number * PAGE_SIZE + place * 100, 8, 0, True)
        recorder.end_part()


def test_blocks_are_counted_a_few_times(monkeypatch):
    """Not for each page that is read: that took minutes for 10,000 tasks."""
    counted = count()
    span_blocks = subject.span_blocks

    def note(spans):
        next(counted)
        return span_blocks(spans)

    monkeypatch.setattr(subject, "span_blocks", note)
    recorder = Recorder(Zeros())
    with recorder.reading(Budget(bytes=128 << 20)):
        put(recorder)
    assert next(counted) < 20 * PARTS


def test_all_parts_together_are_limited():
    recorder = Recorder(Zeros())
    limit = PARTS * PAGE_SIZE // 2
    with (
        pytest.raises(BudgetExceededError, match=f"more than {limit} bytes"),
        recorder.reading(Budget(bytes=limit)),
    ):
        put(recorder)


def test_who_looks_once_needs_no_parts():
    recorder = Recorder(Zeros(), divided=False)
    with recorder.reading() as reading:
        assert not recorder.begin_loop("tasks")
        recorder.read(PAGE_SIZE, 8, 0, True)
    assert not reading.parts
    assert reading.ranges == [Range(PAGE_SIZE, 512)]


def test_addresses_that_no_machine_has():
    """An ELF file can name any; what is recorded has 52 bits for one."""
    recorder = Recorder(Zeros())
    recorder.read((1 << 40) - 8, 8, 0, True)
    for address in ((1 << 52) - 4, 1 << 52, (1 << 64) - 8):
        with pytest.raises(FaultError, match="no machine has memory at"):
            recorder.read(address, 8, 0, True)
    assert recorder.misses == 3


def read_much(pages):
    """Run in a child with limits: read so many pages twice; return whether it may."""
    recorder = Recorder(Zeros())
    budget = Budget(reads=100 * PAGE_SIZE, bytes=1000 * PAGE_SIZE)
    try:
        with recorder.reading(budget):
            for number in range(pages):
                recorder.read(number * PAGE_SIZE, PAGE_SIZE, 0, True)
    except BudgetExceededError:
        return False
    return True


def read_often(reads):
    """The same of so many reads of one place."""
    recorder = Recorder(Zeros())
    try:
        with recorder.reading(Budget(reads=50_000)):
            for _ in range(reads):
                recorder.read(0, 8, 0, True)
    except BudgetExceededError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "most", "raised"),
    [
        (read_much, 1000, Limits(memory=8 << 30)),
        (read_often, 50_000, Limits(cpu=3600)),
    ],
)
def test_budgets_are_raised_with_the_limits(work, most, raised):
    """Or options that raise limits would not let a larger machine's questions end."""
    assert run_bounded(work, most)
    assert not run_bounded(work, 2 * most)
    assert run_bounded(work, 2 * most, limits=raised)
    assert not run_bounded(work, 5 * most, limits=raised)
