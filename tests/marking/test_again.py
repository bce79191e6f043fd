# SPDX-License-Identifier: GPL-2.0-or-later
"""Which questions, and which parts of them, are put again when memory changes."""

import struct
from collections.abc import Iterator

import hypothesis
import pytest
from drgn import Program
from hypothesis import strategies

from kmemdump.areas.area import Area, area
from kmemdump.kernel.attach import Kernel, OwnDebugInfo
from kmemdump.kernel.program import core_program
from kmemdump.marking.mark import Marking, find_hidden, mark
from kmemdump.memory.physical import PAGE_SIZE, PageMemory
from kmemdump.memory.reading import Budget
from kmemdump.memory.recorder import Recorder, current_recorder
from kmemdump.memory.spans import BLOCK_SIZE
from kmemdump.questions.objects import each
from kmemdump.vmcoreinfo import VmcoreInfo
from rigs.synthetic import vmcoreinfo

PAGES = 64
VIRTUAL = 0xFFFF888000000000
INFO = VmcoreInfo.parse(vmcoreinfo(), "test")
HEAD = 0x800
"""Place of a list: the offset of its first node, or 0. Nodes have a value, too."""


class Memory:
    """A kernel whose memory can be changed."""

    def __init__(self) -> None:
        self.pages = {page: bytes(PAGE_SIZE) for page in range(PAGES)}
        memory = PageMemory(self.pages)
        recorder = Recorder(memory)
        prog = core_program(62, INFO, "the test")

        def read(address: int, count: int, offset: int, physical: bool) -> bytes:
            return recorder.read(address - VIRTUAL, count, offset, physical)

        prog.add_memory_segment(VIRTUAL, PAGES * PAGE_SIZE, read, False)
        own = OwnDebugInfo(None, frozenset(), None)
        self.kernel = Kernel(prog, INFO, (), recorder, own, frozenset())

    def write(self, place: int, *words: int) -> None:
        page, low = divmod(place, PAGE_SIZE)
        data = struct.pack(f"<{len(words)}Q", *words)
        before = self.pages[page]
        self.pages[page] = before[:low] + data + before[low + len(data) :]

    def link(self, *nodes: int) -> None:
        for place, following in zip((HEAD, *nodes), (*nodes, 0), strict=True):
            self.write(place, following)


class Lists:
    """An area with a question about each node of the list."""

    def __init__(self) -> None:
        self.asked: list[int] = []

        def nodes(prog: Program) -> None:
            for node in each("nodes", walk(prog)):
                self.asked.append(node)
                size = prog.read_u64(VIRTUAL + node + 8)
                prog.read(VIRTUAL + node + 1024, size % 2048 + 1)

        self.areas = [area("list", "", nodes)]


def walk(prog: Program) -> Iterator[int]:
    node = prog.read_u64(VIRTUAL + HEAD)
    while node:
        yield node
        node = prog.read_u64(VIRTUAL + node)


def look(memory: Memory, areas: list[Area], before: Marking | None = None) -> Marking:
    if before is None:
        return mark(memory.kernel, areas)
    changes = memory.kernel.recorder.refresh()
    return mark(memory.kernel, areas, before=before, changes=changes)


def blocks(marking: Marking) -> list[frozenset[int]]:
    return [item.blocks for item in marking.areas]


@pytest.fixture
def memory() -> Memory:
    memory = Memory()
    memory.link(0x2000, 0x4000, 0x6000)
    return memory


def test_only_objects_that_changed_are_asked_about(memory):
    lists = Lists()
    first = look(memory, lists.areas)
    assert lists.asked == [0x2000, 0x4000, 0x6000]
    lists.asked.clear()
    assert look(memory, lists.areas, first) is first
    assert lists.asked == []
    memory.write(0x4008, 1000)
    second = look(memory, lists.areas, first)
    assert lists.asked == [0x4000]
    assert blocks(second) == blocks(look(memory, lists.areas))


def test_objects_come_and_go(memory):
    lists = Lists()
    first = look(memory, lists.areas)
    memory.link(0x2000, 0x6000, 0x8000)
    lists.asked.clear()
    second = look(memory, lists.areas, first)
    assert lists.asked == [0x8000]
    (kept,) = blocks(second)
    assert 0x8400 // BLOCK_SIZE in kept
    assert 0x4400 // BLOCK_SIZE not in kept
    assert blocks(second) == blocks(look(memory, lists.areas))


def test_bytes_that_nobody_read_change_nothing(memory):
    lists = Lists()
    first = look(memory, lists.areas)
    memory.write(0x2010, 7)  # In the same block as a node.
    assert look(memory, lists.areas, first) is first


def test_a_question_without_loops_is_asked_whole(memory):
    count = 0

    def whole(prog: Program) -> None:
        nonlocal count
        count += 1
        for node in walk(prog):
            prog.read_u64(VIRTUAL + node + 8)

    areas = [area("whole", "", whole)]
    first = look(memory, areas)
    memory.write(0x4008, 1)
    look(memory, areas, first)
    assert count == 2


def test_a_question_that_failed_is_asked_whole(memory):
    asked = []

    def fails(prog: Program) -> None:
        for node in each("nodes", walk(prog)):
            asked.append(node)
            if prog.read_u64(VIRTUAL + node + 8) == 1:
                raise ValueError("torn")

    areas = [area("fails", "", fails)]
    memory.write(0x4008, 1)
    first = look(memory, areas)
    assert first.areas[0].reason == "torn"
    asked.clear()
    memory.write(0x4008, 2)
    second = look(memory, areas, first)
    assert second.areas[0].reason is None
    assert asked == [0x2000, 0x4000, 0x6000]


def test_a_question_that_took_too_long_is_asked_again(memory):
    def loops(prog: Program) -> None:
        while prog.read_u64(VIRTUAL + 0x4008):
            pass

    areas = [area("loops", "", loops)]
    memory.write(0x4008, 1)
    first = mark(memory.kernel, areas, budget=Budget(reads=100))
    assert first.areas[0].reason is not None
    memory.write(0x4008, 0)
    assert look(memory, areas, first).areas[0].reason is None


def test_what_a_program_keeps_is_marked_on(memory):
    """drgn reads it once, since it does not change."""

    def keeps(prog: Program) -> None:
        if "place" not in prog.cache:
            prog.cache["place"] = prog.read_u64(VIRTUAL + 0xA000)
        prog.read_u64(VIRTUAL + 0x4008)

    areas = [area("keeps", "", keeps)]
    first = look(memory, areas)
    assert 0xA000 // BLOCK_SIZE in first.areas[0].blocks
    first = find_hidden(memory.kernel, first, Budget())
    memory.write(0x4008, 1)
    second = look(memory, areas, first)
    assert 0xA000 // BLOCK_SIZE in second.areas[0].blocks


def test_what_a_program_keeps_later_is_marked_on(memory):
    def keeps(prog: Program) -> None:
        if prog.read_u64(VIRTUAL + 0x4008) and "place" not in prog.cache:
            prog.cache["place"] = prog.read_u64(VIRTUAL + 0xA000)

    areas = [area("keeps", "", keeps)]
    marking = find_hidden(memory.kernel, look(memory, areas), Budget())
    for value in (1, 2, 3):
        memory.write(0x4008, value)
        marking = look(memory, areas, marking)
        assert 0xA000 // BLOCK_SIZE in marking.areas[0].blocks


def test_a_memo_is_made_again_when_it_changed(memory):
    made = []

    def uses(prog: Program) -> None:
        recorder = current_recorder()
        assert recorder is not None

        def make() -> int:
            made.append(prog.read_u64(VIRTUAL + 0xA000))
            return made[-1]

        value = recorder.memo("key", make)
        prog.read_u64(VIRTUAL + 0xC000 + value)

    areas = [area("one", "", uses), area("two", "", uses)]
    first = look(memory, areas)
    assert made == [0]
    # Each area needs what the memo read.
    assert all(0xA000 // BLOCK_SIZE in item.blocks for item in first.areas)
    memory.write(0xA000, 2 * BLOCK_SIZE)
    second = look(memory, areas, first)
    assert made == [0, 2 * BLOCK_SIZE]
    needed = {0xA000 // BLOCK_SIZE, 0xC000 // BLOCK_SIZE + 2}
    assert blocks(second) == [needed, needed]


def test_what_always_changes_is_always_asked(memory):
    count = 0

    def registers(prog: Program) -> None:
        nonlocal count
        count += 1
        recorder = current_recorder()
        assert recorder is not None
        recorder.note_volatile()

    areas = [area("registers", "", registers)]
    look(memory, areas, look(memory, areas))
    assert count == 2


def test_loops_in_loops_and_loops_of_one_name(memory):
    """Only the outer one, and the first one, are divided."""
    asked = []

    def nested(prog: Program) -> None:
        for outer in each("nodes", walk(prog)):
            for inner in each("inner", (0, 8)):
                asked.append((outer, inner))
                prog.read_u64(VIRTUAL + outer + inner)
        for node in each("nodes", walk(prog)):
            asked.append(node)

    areas = [area("nested", "", nested)]
    first = look(memory, areas)
    asked.clear()
    memory.write(0x4008, 1)
    second = look(memory, areas, first)
    assert asked == [(0x4000, 0), (0x4000, 8), 0x2000, 0x4000, 0x6000]
    assert blocks(second) == blocks(look(memory, areas))


PLACES = strategies.sampled_from(range(0x2000, 0x20000, 0x1000))


@hypothesis.given(
    strategies.lists(
        strategies.tuples(
            strategies.lists(PLACES, unique=True, max_size=8),
            strategies.lists(
                strategies.tuples(PLACES, strategies.integers(0, 4000)), max_size=4
            ),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_any_changes_are_marked_as_by_a_full_look(
    steps: list[tuple[list[int], list[tuple[int, int]]]],
) -> None:
    memory, lists = Memory(), Lists()
    marking: Marking | None = None
    for nodes, values in steps:
        memory.link(*nodes)
        for place, value in values:
            memory.write(place + 8, value)
        marking = look(memory, lists.areas, marking)
        other = Memory()
        other.pages.update(memory.pages)
        assert blocks(marking) == blocks(mark(other.kernel, Lists().areas))
