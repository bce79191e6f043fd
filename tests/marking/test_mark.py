# SPDX-License-Identifier: GPL-2.0-or-later
"""Marking: each area on its own, whatever the others meet."""

import struct

import pytest
from drgn import FaultError, Program

from kmemdump.areas import Area
from kmemdump.areas.area import area
from kmemdump.areas.crash import CRASH
from kmemdump.areas.simple import SYMBOLS
from kmemdump.errors import UsageError
from kmemdump.kernel.attach import Kernel, OwnDebugInfo
from kmemdump.kernel.program import core_program
from kmemdump.marking.mark import mark
from kmemdump.memory.physical import PAGE_SIZE, PageMemory
from kmemdump.memory.ranges import Range
from kmemdump.memory.reading import Budget
from kmemdump.memory.recorder import Recorder
from kmemdump.memory.spans import BLOCK_SIZE
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import function
from kmemdump.vmcoreinfo import VmcoreInfo
from rigs.synthetic import vmcoreinfo

PAGES = 64
VIRTUAL = 0xFFFF888000000000
INFO = VmcoreInfo.parse(vmcoreinfo(), "test")

# A list whose last node leads back to its second, so that the head is never met again.
LOOP = {0x3000: 0x3010, 0x3010: 0x4020, 0x4020: 0x3010}


def make_kernel(problem: str | None = None) -> Kernel:
    """A kernel whose memory is mapped at VIRTUAL, page by page."""
    pages = {page: bytearray(PAGE_SIZE) for page in range(PAGES)}
    for place, target in LOOP.items():
        pointer = struct.pack("<Q", VIRTUAL + target)
        at = place % PAGE_SIZE
        pages[place // PAGE_SIZE][at : at + 8] = pointer
    memory = PageMemory({page: bytes(data) for page, data in pages.items()})
    recorder = Recorder(memory)
    prog = core_program(62, INFO, "the test")

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        return recorder.read(address - VIRTUAL, count, offset, physical)

    prog.add_memory_segment(VIRTUAL, (PAGES + 8) * PAGE_SIZE, read, False)
    own = OwnDebugInfo(None, frozenset(), problem)
    return Kernel(prog, INFO, (), recorder, own, frozenset())


@pytest.fixture
def kernel() -> Kernel:
    return make_kernel()


def reads(*addresses: int, name: str = "reads"):
    def put(prog: Program) -> None:
        for address in addresses:
            prog.read(VIRTUAL + address, 8)

    put.__name__ = name
    return put


def loops(prog: Program) -> None:
    node = VIRTUAL + 0x3000
    while True:
        node = prog.read_u64(node)


def fails(prog: Program) -> None:
    raise AttributeError("struct task_struct has no member 'state'")


def blocks(*addresses: int) -> set[int]:
    return {address // BLOCK_SIZE for address in addresses}


def test_an_area_is_what_its_questions_read(kernel):
    marks = mark(kernel, [area("a", "", reads(0x1000, 0x1210)), area("b", "")])
    assert marks.complete
    assert [item.name for item in marks.areas] == ["a", "b"]
    assert marks.areas[0].blocks == blocks(0x1000, 0x1200)
    assert marks.areas[1].blocks == set()
    assert marks.named_ranges() == [("a@1000", Range(0x1000, 2 * BLOCK_SIZE))]
    assert marks.size == 2 * BLOCK_SIZE


def test_what_two_areas_read_is_marked_once(kernel):
    first, second = mark(
        kernel, [area("a", "", reads(0, 0x2000)), area("b", "", reads(0x2000, 0x5000))]
    ).areas
    assert second.blocks == blocks(0x2000, 0x5000)
    assert second.own == blocks(0x5000)
    assert first.own | second.own == first.blocks | second.blocks


def test_an_area_that_fails_says_why_and_stops_no_other(kernel):
    areas = [
        area("bad", "", reads(0x1000, name="good"), fails, reads(0x2000, name="more")),
        area("looping", "", loops),
        area("missing", "", reads(PAGES * PAGE_SIZE + 16)),
        area("fine", "", reads(0x6000)),
    ]
    bad, looping, missing, fine = mark(kernel, areas, budget=Budget(reads=9999)).areas
    assert bad.reason == (
        "fails: AttributeError: struct task_struct has no member 'state'"
    )
    assert bad.blocks == blocks(0x1000, 0x2000)  # What did work is kept.
    assert [item.reason is None for item in bad.questions] == [True, False, True]
    assert looping.reason == "loops: the question took more than 9999 reads"
    assert looping.blocks == blocks(*LOOP)
    assert missing.reason is not None
    assert "0x40010 was not read" in missing.reason
    assert "not in the target: 0x40010" in missing.reason
    assert fine.reason is None
    assert fine.blocks == blocks(0x6000)


def test_a_looping_list_hits_the_budget_of_seconds(kernel):
    marks = mark(kernel, [area("looping", "", loops)], budget=Budget(seconds=0.05))
    assert (
        marks.areas[0].reason == "loops: the question took more than 0.05 s of CPU time"
    )
    assert not marks.complete


def test_a_question_that_takes_all_memory(kernel):
    everything = reads(*range(0, PAGES * PAGE_SIZE, 256))
    marks = mark(kernel, [area("a", "", everything)], budget=Budget(bytes=65536))
    assert marks.areas[0].reason == "reads: the question took more than 65536 bytes"


def test_a_question_that_hides_its_failure(kernel):
    """drgn's helpers catch errors, too; a budget is not to be caught away."""

    def stubborn(prog: Program) -> None:
        for _ in range(100):
            try:
                loops(prog)
            except Exception:
                continue

    marks = mark(kernel, [area("a", "", stubborn)], budget=Budget(reads=5000))
    assert marks.areas[0].seconds < 20


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(1),
        RecursionError("too deep"),
        MemoryError(),
        OverflowError("int too big"),
        NotImplementedError("not in this kernel"),
        FaultError("could not read", 0x10),
        Exception("libdrgn says"),
    ],
)
def test_whatever_a_question_raises(kernel, error):
    def put(prog: Program) -> None:
        raise error

    marks = mark(kernel, [area("a", "", put), area("b", "", reads(0))])
    assert marks.areas[0].reason
    assert marks.areas[1].reason is None


def test_ctrl_c_is_not_an_answer(kernel):
    def put(prog: Program) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mark(kernel, [area("a", "", put)])
    assert mark(kernel, [area("b", "", reads(0))]).complete


def test_nothing_is_printed(kernel, capsys):
    mark(kernel, [area("a", "", lambda prog: print("answer"))])
    assert capsys.readouterr() == ("", "")


def test_own_questions(kernel, tmp_path, capsys):
    path = tmp_path / "out"
    asked = [
        command(f"drgn prog.read({VIRTUAL + 0x7000}, 1)", trusted=True),
        command(f"drgn print(1) > {path}", trusted=True),
        command("drgn print(1) | grep 2", trusted=True),  # It answered all the same.
        function(reads(0x8000)),
    ]
    marks = mark(kernel, [area("a", "", reads(0x7000))], questions=asked)
    own = marks.areas[1]
    assert own.name == "questions"
    assert own.reason is None
    assert own.blocks == blocks(0x7000, 0x8000)
    assert own.own == blocks(0x8000)


def test_a_region(kernel):
    wanted = [("buffer", VIRTUAL + 0x1800, 0x1000), ("gone", VIRTUAL - 16, 8)]
    buffer, gone = mark(kernel, [], regions=wanted).areas
    assert buffer.blocks == blocks(*range(0x1800, 0x2800, BLOCK_SIZE))
    assert buffer.reason is None
    assert gone.reason


@pytest.mark.parametrize("size", [0, -1, (128 << 20) + 1, 1 << 63])
def test_a_region_of_a_strange_size(kernel, size):
    (found,) = mark(kernel, [], regions=[("strange", VIRTUAL, size)]).areas
    assert found.reason == f"{size} bytes, expected 1 to {128 << 20}"


def test_a_symbol_that_is_not_there(kernel):
    (found,) = mark(kernel, [], symbols=["nosuch"]).areas
    assert (found.name, found.reason) == (
        "nosuch",
        "the kernel has no symbol 'nosuch'",
    )


def test_without_symbols_and_types():
    """A kernel whose kallsyms are gone still has a log."""
    kernel = make_kernel("no kallsyms")
    bare = Area("log", "", (function(reads(0x1000), bare=True),))
    log, tasks, symbols = mark(kernel, [bare, area("tasks", "", fails), SYMBOLS]).areas
    assert log.reason is None
    assert log.blocks == blocks(0x1000)
    assert tasks.reason == "fails: needs the kernel's symbols and types"
    assert symbols.reason == "no kallsyms"
    assert symbols.packed


def test_crash_reads_by_the_page(kernel):
    by_block = mark(kernel, [area("a", "", reads(0x1000))])
    by_page = mark(make_kernel(), [area("a", "", reads(0x1000)), CRASH])
    assert by_block.areas[0].blocks == blocks(0x1000)
    assert by_page.areas[0].blocks == blocks(*range(0x1000, 0x2000, BLOCK_SIZE))


def test_a_usage_error_in_a_question_is_its_reason(kernel):
    def put(prog: Program) -> None:
        raise UsageError("that makes no sense")

    assert mark(kernel, [area("a", "", put)]).areas[0].reason == (
        "put: that makes no sense"
    )


def test_what_runs_has_no_trace_without_registers(kernel):
    """Nothing is wrong with its memory, and that is kept apart."""

    def traces(prog: Program) -> None:
        raise ValueError("registers for CPU 1 were not saved")

    def breaks(prog: Program) -> None:
        raise ValueError("a damaged list")

    found = mark(kernel, [area("stacks", "", traces, breaks)]).areas[0].questions
    assert [it.without_registers for it in found] == [True, False]
    assert found[0].reason == "registers for CPU 1 were not saved"
