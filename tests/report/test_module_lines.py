# SPDX-License-Identifier: GPL-2.0-or-later
"""Source lines of modules' functions on stacks, judged by addr2line."""

from dataclasses import replace

import pytest

from kmemdump.diagnosis.records import Cause, CauseKind, Cpu, Frame, Task
from kmemdump.formats.elf_sections import parse_object
from kmemdump.report.module_lines import ModulePlace, with_module_lines
from kmemdump.report.records import BlockedTask, KernelIdentity, StackGroup, Times
from kmemdump.report.report import Report
from rigs.built_module import build_module_file, needs_compiler

pytestmark = needs_compiler
START = {"a": 0xFFFFFFFFC0460000, "b": 0xFFFFFFFFC0560000}
CALLER = Frame(0xFFFFFFFF81000010, "vfs_write", 16)
TASK = Task(1, "init")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    return {
        name: build_module_file(folder / f"{name}.ko", i) for i, name in enumerate("ab")
    }


def place_of(module, start):
    data = module.path.read_bytes()
    sections = {}
    place = start
    for item in parse_object(lambda at, n: data[at : at + n], len(data), "x.ko"):
        if item.is_loaded:
            sections[item.name] = place
            place += item.size + 63 & -64
    build_id = bytes.fromhex(module.build_id)
    return ModulePlace(build_id, sections, [(start, place)])


@pytest.fixture(scope="module")
def places(built):
    return {name: place_of(module, START[name]) for name, module in built.items()}


def files_of(built):
    return {name: [module.path] for name, module in built.items()}


def frame_at(built, places, name, function, offset, **fields):
    section, start, _ = built[name].symbol(function)
    pc = places[name].sections[section] + start + offset
    return Frame(pc, function, offset, name, **fields)


def report_of(frames, **fields):
    cause = Cause(CauseKind.PANIC, "It died.", cpu=1, frame=0)
    cpus = (Cpu(0, True, frames=(CALLER,)), Cpu(1, True, frames=tuple(frames)))
    return replace(Report("x", KernelIdentity("6"), Times(), cause, cpus), **fields)


def names(lines):
    return [line.rpartition("/")[2] for line in lines]


def test_each_place_of_two_modules(built, places):
    expected, frames = [], []
    for name, function in (("a", "outer"), ("b", "outer"), ("b", "seldom")):
        size = built[name].symbol(function)[2]
        for interrupted in (False, True):
            offsets = range(1, size)
            frames += [
                frame_at(built, places, name, function, it, interrupted=interrupted)
                for it in offsets
            ]
            expected += built[name].lines(
                function, [it if interrupted else it - 1 for it in offsets]
            )
    found = with_module_lines(report_of([*frames, CALLER]), places, files_of(built))
    *ours, caller = found.cpus[1].frames
    assert names(frame.source for frame in ours) == expected
    assert [replace(frame, source=None) for frame in ours] == frames
    assert (caller, found.cpus[0].frames) == (CALLER, (CALLER,))


def test_functions_that_are_inlined(built, places):
    """They come before the one that has them; the cause names the same frame."""
    frames = [
        frame_at(built, places, "a", "whole", offset, interrupted=True)
        for offset in range(built["a"].symbol("whole")[2])
    ]
    found = with_module_lines(report_of(frames), places, files_of(built)).cpus[1].frames
    chains, chain = [], []
    for frame in found:
        chain.append((frame.symbol, *names([frame.source])))
        assert frame.inline == (frame.symbol != "whole")
        if not frame.inline:
            chains.append(chain)
            chain = []
    assert chains == built["a"].inlined("whole", range(len(frames)))
    deepest = max(range(len(frames)), key=lambda i: len(chains[i]))
    assert len(chains[deepest]) == 2
    cause = Cause(CauseKind.PANIC, "It died.", cpu=1, frame=1)
    report = report_of([frames[deepest], frames[deepest], CALLER], cause=cause)
    found = with_module_lines(report, places, files_of(built))
    marked = found.cpus[1].frames[found.cause.frame]
    assert (found.cause.frame, marked.symbol) == (3, "whole")


def test_blocked_tasks_and_stacks(built, places):
    frame = frame_at(built, places, "a", "outer", 9)
    blocked, stack = BlockedTask(TASK, (frame,), "cut"), StackGroup((TASK,), (frame,))
    report = report_of([frame], blocked=(blocked,), stacks=(stack,))
    found = with_module_lines(report, places, files_of(built))
    (expected,) = found.cpus[1].frames
    assert expected.source is not None
    assert found.blocked == (BlockedTask(TASK, (expected,), "cut"),)
    assert found.stacks == (StackGroup((TASK,), (expected,)),)


def test_files_that_are_not_used(built, places, tmp_path):
    """Of another build, of no module that is there, or no files."""
    report = report_of([frame_at(built, places, "a", "outer", 9)])
    broken = tmp_path / "a.ko"
    broken.write_bytes(b"\x7fELF" + bytes(60))
    for files in (
        {},
        {"a": [built["b"].path]},
        {"c": [built["a"].path]},
        {"a": [broken]},
        {"a": [tmp_path / "none"]},
    ):
        assert with_module_lines(report, places, files) == report
    assert with_module_lines(report, {}, files_of(built)) == report


def test_frames_outside_of_the_file(built, places):
    frames = [
        Frame(places["a"].ranges[0][1] - 1, "f", 1, "a"),
        Frame(0, None, None, "a"),
        Frame((1 << 64) - 1, "f", 1, "a", interrupted=True),
        frame_at(built, places, "a", "outer", 9, source="given.c:1"),
        frame_at(built, places, "a", "outer", 9, inline=True),
    ]
    found = with_module_lines(report_of(frames), places, files_of(built))
    assert list(found.cpus[1].frames) == frames
