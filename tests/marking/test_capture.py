# SPDX-License-Identifier: GPL-2.0-or-later
"""Capturing: what is under a core image's name is whole, whatever happens."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from kmemdump.coreimage import read_core, verify
from kmemdump.errors import NotCapturedError, UnsupportedError
from kmemdump.marking.capture import Capture, capture
from kmemdump.marking.mark import AreaResult, Marking
from kmemdump.marking.registry import Registry
from kmemdump.memory.ranges import Range, Region
from kmemdump.opening import open_target
from rigs.dead_machine import DeadMachine
from rigs.scenarios import each_series_once, once
from rigs.synthetic import elf_core, vmcoreinfo, vmcoreinfo_note
from rigs.verbs import run

PAGE = 4096
X = Range(0x2000, 0x18)


def test_a_target_without_a_kernel(tmp_path):
    path = tmp_path / "dump"
    note = vmcoreinfo_note(vmcoreinfo())
    path.write_bytes(elf_core([(0x1000, bytes(PAGE))], note))
    with (
        open_target(str(path)) as target,
        pytest.raises(UnsupportedError, match="no kallsyms in the kernel's memory"),
    ):
        capture(target)
    with pytest.raises(NotCapturedError, match="Bad file descriptor"):
        target.memory.read(0x1000, 1)  # It was closed.


def test_regions_end_where_memory_ends():
    memory = SimpleNamespace(
        ranges=[Range(0, 0x300), Range(0x1000, 0x200), Range(0x2000, 0x400)]
    )
    nothing: frozenset[int] = frozenset()
    areas = [
        AreaResult("a", nothing, frozenset({0, 1, 8}), 0.0, ()),
        AreaResult("b", nothing, frozenset({16, 17}), 0.0, (), named=(("x", X),)),
        AreaResult("c", nothing, frozenset({5}), 0.0, ()),
        AreaResult("d", nothing, frozenset({16}), 0.0, (), named=(("y", X),)),
    ]
    captured = Capture(None, Marking(tuple(areas)), None, memory, 62)
    assert captured.regions == [
        Region(3, "a@0", 0, 0x300),
        Region(4, "a@1000", 0x1000, 0x200),
        Region(5, "x", 0x2000, 0x18),  # Each range once.
        Region(6, "b@2018", 0x2018, 0x400 - 0x18),
        Region(7, "d@2018", 0x2018, 0x200 - 0x18),
    ]


def test_the_target_is_not_replaced_by_its_core_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "dump"
    path.write_bytes(b"the only one")
    Path("link").symlink_to("dump")
    for target in (path, f"file:{path}", "link"):
        for output in (path, "dump", "link"):
            ended = run("capture", target, "-o", output)
            assert ended.status == 2
            assert "is what is read, expected another file" in ended.err
    assert path.read_bytes() == b"the only one"


@each_series_once
def test_a_second_look_reads_less_and_finds_the_same(
    dead: DeadMachine, tmp_path: Path
) -> None:
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        first = capture(target)
        second = capture(target, known=first)
        assert first.marking.complete, [area.reason for area in first.marking.areas]
        assert second.marking.complete
        assert second.kernel.own_debug_info.found is first.kernel.own_debug_info.found
        names = [area.name for area in first.marking.areas]
        assert names == [area.name for area in second.marking.areas]
        # The kernel is dead: what it answers lies where it lay.
        for one, two in zip(first.marking.areas, second.marking.areas, strict=True):
            assert two.blocks <= one.blocks | first.kernel.base_blocks, one.name
        registry = Registry(target.memory.ranges)
        registry.update(first.regions)
        ids = {region.name: region.id for region in registry}
        registry.update(first.regions)
        assert {region.name: region.id for region in registry} == ids
        path = tmp_path / "core"
        assert second.save(path, packed=first.pack()) == []
        with read_core(path) as core:
            assert verify(core) == []
    finally:
        target.close()


@each_series_once
def test_a_core_image_of_a_core_image_answers_the_same(
    dead: DeadMachine, core_image: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.core"
    assert run("capture", core_image, "-o", copy).status == 0
    questions = ("log", "ps", "bt -a", "mod", "mount", "timer")
    expected = run("ask", core_image, *questions)
    assert expected.status == 0
    assert run("ask", copy, *questions).out == expected.out


@each_series_once
def test_own_wishes(dead: DeadMachine, core_image: Path, tmp_path: Path) -> None:
    path = tmp_path / "core"
    question = tmp_path / "mine.py"
    question.write_text(
        "def release(prog):\n"
        "    print(prog['init_uts_ns'].name.release.string_().decode())\n"
    )
    selection = (
        "--area", "kmsg", "--area", "symbols", "--symbol", "panic_timeout",
        "--ask", question, "--ask", "log | grep -c .",
    )  # fmt: skip
    ended = run("capture", core_image, "-o", path, *selection)
    assert ended.status == 0, ended
    ended = run("ask", path, question, "drgn print(prog['panic_timeout'])")
    assert ended.status == 0, ended
    assert ended.out.splitlines()[0] == dead.machine.setup.kernel.release
    assert ended.out.splitlines()[1].startswith("(int)")
    ended = run("ask", path, "ps")  # Nobody wished for it.
    assert ended.status == 1
    assert len(ended.lines) == 1
    wrong = ("--symbol", "nosuch", "--region", "nowhere=0x10:8")
    ended = run("capture", core_image, "-o", path, "--area", "kmsg", *wrong)
    assert ended.status == 1
    note, *lines = ended.lines
    assert note.startswith("kmemdump: --area: only coreinfo, kmsg; not panic, ")
    assert lines[0] == (
        "kmemdump: area nosuch is incomplete: the kernel has no symbol 'nosuch'"
    )
    assert lines[1].startswith("kmemdump: area nowhere is incomplete: address")


def check_name(path: Path) -> bool:
    """Whether there is something under the name, which must be whole then."""
    if not path.exists():
        return False
    with read_core(path) as core:
        assert core.manifest is not None
        assert verify(core) == []
    assert path.stat().st_mode & 0o777 == 0o600
    return True


@once
def test_killed_at_any_moment(
    dead: DeadMachine, core_image: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "dumps"
    folder.mkdir()
    path = folder / "killed.core"
    arguments = ("capture", core_image, "-o", path, *dead.options)
    capture = (sys.executable, "-m", "kmemdump", *arguments)
    start = time.monotonic()
    subprocess.run(capture, check=True, capture_output=True)
    whole = time.monotonic() - start
    assert check_name(path)
    path.unlink()
    chance = random.Random(1)
    killed = 0
    for number in range(8):
        process = subprocess.Popen(
            capture, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Later and later: the last moments are the interesting ones.
        delay = whole * (0.2 + number / 9) + chance.uniform(0, whole / 20)
        start = time.monotonic()
        try:
            process.wait(delay)
            whole = time.monotonic() - start  # A busy host has become less so.
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
        if check_name(path):
            path.unlink()
    assert killed >= 3
    # Who writes next cleans up behind those who were killed.
    assert run(*arguments).status == 0
    assert [item.name for item in folder.iterdir()] == ["killed.core"]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system: run it as root")
    mount = ("mount", "-t", "tmpfs", "-o", "size=1m", "kmemdump", str(folder))
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here: run it on a whole machine")
    try:
        yield folder
    finally:
        subprocess.run(("umount", str(folder)), check=True)


@each_series_once
def test_a_full_disk(dead: DeadMachine, core_image: Path, full_disk: Path) -> None:
    path = full_disk / "core"
    ended = run("capture", core_image, "-o", path)
    assert ended.status == 3
    assert ended.lines == [
        f"kmemdump: error: cannot write {path}: No space left on device"
    ]
    assert list(full_disk.iterdir()) == []
    # What was there before stays.
    small = ("--area", "coreinfo", "--area", "-symbols")
    assert run("capture", core_image, "-o", path, *small).status == 0
    before = path.read_bytes()
    assert run("capture", core_image, "-o", path).status == 3
    assert path.read_bytes() == before
    assert list(full_disk.iterdir()) == [path]
