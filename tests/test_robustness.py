# SPDX-License-Identifier: GPL-2.0-or-later
"""
Whatever a file holds, each verb ends in time, with an exit code and no traceback.

A file that is no dump, or only a part of one, is refused in one line.
"""

import gzip
import os
import random
import re
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import settings

from kmemdump.arch.architecture import image_address
from kmemdump.coreimage import read_core
from kmemdump.coreimage.read import find_extents
from kmemdump.formats.elf import PT_LOAD, parse_core
from kmemdump.kernel.attach import attach
from kmemdump.kernel.tasks import readable_pids
from kmemdump.lab import X86_64
from kmemdump.opening import open_target
from rigs.damage import damage, kernel_pointers, move_pointers, spans
from rigs.dead_machine import DeadMachine
from rigs.forged_manifest import COUNT, FORGERIES, forge
from rigs.scenarios import each_architecture, once
from rigs.synthetic import (
    elf_core,
    flat,
    kdump,
    lime,
    note,
    prstatus,
    vmcoreinfo,
    vmcoreinfo_note,
)
from rigs.verbs import Run, run

pytestmark = pytest.mark.slow

PAGE = 4096
NOTE = vmcoreinfo_note(vmcoreinfo())
VERBS: dict[str, tuple[str, ...]] = {
    "areas": (),
    "ask": ("log", "sys", "ps", "bt -a", "mod"),
    "capture": (),
    "info": (),
    "report": (),
}


def put(verb: str, target: str | Path, folder: Path, *options: str) -> Run:
    output = ("-o", str(folder / "output.core")) if verb == "capture" else ()
    return run(verb, target, *VERBS[verb], *options, *output)


def assert_ended_well(ended: Run) -> None:
    assert ended.status in (0, 1, 2, 3), ended
    assert "Traceback" not in ended.err + ended.out, ended
    assert "a bug of kmemdump" not in ended.err, ended
    if ended.status == 3:
        assert len(ended.lines) == 1, ended
        assert ended.lines[0].startswith("kmemdump: error: ")
        assert ended.out == ""


def assert_refused(ended: Run, problem: str) -> None:
    assert_ended_well(ended)
    assert ended.status == 3, ended
    assert re.search(problem, ended.lines[0]), ended


each_verb = pytest.mark.parametrize("verb", VERBS)


# Files that are no dump


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


def make_process_core(path: Path) -> None:
    auxv = note(b"CORE", 6, bytes(16))
    files = note(b"CORE", 0x46494C45, struct.pack("<QQ", 0, PAGE))
    notes = note(b"CORE", 1, prstatus(0)) + auxv + files
    path.write_bytes(elf_core([(0, bytes(PAGE))], notes, vaddr=0x400000))


RANDOM = random.Random(1).randbytes(100_000)

FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "No such file or directory"),
    "empty": (Path.touch, "is empty, expected a RAM image or a dump"),
    "folder": (Path.mkdir, r"no md_\*.BIN files in it"),
    "text": (lambda path: path.write_text("To whom it may concern\n"), "is text"),
    "fifo": (make_fifo, "is a FIFO"),
    "socket": (make_socket, "is a socket, .* say qmp:"),
    "zeros": (lambda path: path.write_bytes(bytes(99_999)), "not a known dump format"),
    "noise": (lambda path: path.write_bytes(RANDOM), "not a known dump format"),
    "gzip": (
        lambda path: path.write_bytes(gzip.compress(bytes(99))),
        "is compressed with gzip",
    ),
    "program": (lambda path: path.symlink_to(sys.executable), r"is an ELF (exec|sha)"),
    "process": (make_process_core, "is the core of a process"),
    "zero": (lambda path: path.symlink_to("/dev/zero"), "is a character device"),
    "null": (lambda path: path.symlink_to("/dev/null"), "is a character device"),
    "loop": (lambda path: path.symlink_to(path), "Too many levels"),
    "elf": (lambda path: path.write_bytes(b"\x7fELF"), "is a truncated ELF file"),
    "noisy-elf": (
        lambda path: path.write_bytes(b"\x7fELF\2\1\1" + RANDOM),
        "is an ELF file of type",
    ),
    "noisy-core": (
        lambda path: path.write_bytes(elf_core([])[:20] + RANDOM),
        "expected",
    ),
    "noisy-kdump": (lambda path: path.write_bytes(b"KDUMP   " + RANDOM), "expected"),
    "noisy-flat": (
        lambda path: path.write_bytes(flat([], end=False) + RANDOM),
        "expected|record of|truncated",
    ),
    "noisy-lime": (lambda path: path.write_bytes(b"EMiL" + RANDOM), "expected"),
}


@each_verb
@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_dump(verb, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, problem = FILES[kind]
    path = tmp_path / kind
    make(path)
    ended = put(verb, path, tmp_path)
    assert_refused(ended, problem)
    assert str(path) in ended.lines[0]
    assert not (tmp_path / "output.core").exists()


@pytest.fixture
def open_folder():
    """A folder that others may enter; pytest's own is private."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@each_verb
def test_a_file_that_may_not_be_read(verb, open_folder):
    path = open_folder / "secret"
    options = ("-o", "output.core") if verb == "capture" else ()
    path.write_bytes(b"secret")
    path.chmod(0)
    ended = run(verb, path, *VERBS[verb], *options, nobody=os.geteuid() == 0)
    assert_refused(ended, "secret: Permission denied")
    if os.geteuid() == 0 and verb != "report":  # Which takes it for a log first.
        assert "readable by its owner only: run this as root" in ended.lines[0]


@each_verb
def test_a_name_that_no_terminal_should_see(verb, tmp_path):
    ended = put(verb, tmp_path / "a\nb\x1b[31m", tmp_path)
    assert_refused(ended, "No such file")
    assert "\x1b" not in ended.err


# Dumps without a kernel that can be looked at, and truncated ones


def lime_file() -> bytes:
    return lime([(0x100000, NOTE), (0x200000, bytes(5 * PAGE))])


def kdump_file() -> bytes:
    pages = {frame: os.urandom(8) * 512 for frame in range(1, 40)}
    return kdump(pages, info=vmcoreinfo())


def core_file() -> bytes:
    return elf_core([(0x1000 * i, bytes([i]) * PAGE) for i in range(1, 9)], NOTE)


DUMPS = {
    "elf": core_file(),
    "lime": lime_file(),
    "kdump": kdump_file(),
    "flat": flat([(0, kdump_file())]),
}


@each_verb
@pytest.mark.parametrize("kind", DUMPS)
def test_a_dump_without_a_kernel(verb, kind, tmp_path):
    """Nothing is where its VMCOREINFO says; that is said, and no more happens."""
    path = tmp_path / kind
    path.write_bytes(DUMPS[kind])
    ended = put(verb, path, tmp_path)
    if verb in ("areas", "capture"):
        assert_refused(ended, "no kallsyms in the kernel's memory")
        assert not (tmp_path / "output.core").exists()
    else:
        assert_ended_well(ended)
        assert ended.status == (0 if verb == "info" else 1), ended


@pytest.mark.parametrize("kind", DUMPS)
@pytest.mark.parametrize("verb", ["ask", "info"])
def test_a_truncated_dump(verb, kind, tmp_path):
    """At any length but those at which nothing shows that more should follow."""
    data = DUMPS[kind]
    path = tmp_path / kind
    whole = {len(data)}
    if kind == "lime":
        whole.add(len(lime([(0x100000, NOTE)])))
    lengths = {*range(8, len(data), len(data) // 12), len(data) - 1}
    for length in sorted(lengths - whole):
        path.write_bytes(data[:length])
        ended = put(verb, path, tmp_path)
        assert_refused(
            ended, "missing|truncated|expected|no VMCOREINFO|file ends|header"
        )


@pytest.mark.parametrize("kind", DUMPS)
def test_a_truncated_dump_says_what_is_missing(kind, tmp_path):
    data = DUMPS[kind]
    path = tmp_path / kind
    path.write_bytes(data[:-100])
    ended = put("info", path, tmp_path)
    lack = "100" if kind != "flat" else r"\d+"
    assert_refused(ended, f"is truncated: {len(data) - 100} bytes, .* {lack} are miss")
    assert ended.lines[0].endswith("--damaged goes on with the rest")
    ended = put("info", path, tmp_path, "--damaged")
    assert_ended_well(ended)
    assert ended.status in (0, 1)
    assert f"warning: {path}: is truncated" in ended.err


@pytest.mark.parametrize("kind", [*DUMPS, "incomplete"])
def test_a_report_says_that_its_dump_is_not_whole(kind, tmp_path):
    """In its text, which goes on without what was printed beside it."""
    path, options = tmp_path / kind, ("--damaged",)
    if kind == "incomplete":
        path.write_bytes(kdump({1: bytes(PAGE)}, info=vmcoreinfo(), status=9))
        options = ()
    else:
        path.write_bytes(DUMPS[kind][:-100])
    problem = "is marked incomplete" if kind == "incomplete" else "truncated:"
    for verb in ("report", "info"):
        ended = put(verb, path, tmp_path, *options)
        assert_ended_well(ended)
        assert ended.status == 1
        assert problem in " ".join(ended.out.split())


@each_verb
def test_a_vmcoreinfo_that_drgn_refuses_late(verb, tmp_path):
    """Without the size of addresses, it walks no page table."""
    tables = ("names", "num_syms", "token_table", "token_index", "offsets")
    lines = [f"SYMBOL(kallsyms_{name})=ffff800081000000" for name in tables]
    lines.append("SYMBOL(kallsyms_relative_base)=ffff800081000000\n")
    info = vmcoreinfo() + "\n".join(lines).encode()
    path = tmp_path / "core"
    path.write_bytes(elf_core([(0x1000, bytes(PAGE))], vmcoreinfo_note(info), 183))
    ended = put(verb, path, tmp_path)
    assert_ended_well(ended)
    if verb in ("areas", "capture"):
        assert_refused(ended, "drgn refuses it: .* VA_BITS")


def test_memory_at_the_end_of_all_addresses(tmp_path):
    path = tmp_path / "end"
    path.write_bytes(elf_core([((1 << 64) - PAGE, bytes(PAGE))], NOTE))
    for verb in VERBS:
        assert_ended_well(put(verb, path, tmp_path))


def test_a_hundred_thousand_program_headers(tmp_path):
    header = struct.pack("<IIQQQQQQ", 1, 7, 64, 0, 0x1000, 1 << 40, 1 << 40, 0)
    data = bytearray(core_file())
    struct.pack_into("<Q", data, 32, len(data))  # e_phoff
    struct.pack_into("<H", data, 56, 60_000)  # e_phnum
    path = tmp_path / "many"
    path.write_bytes(bytes(data) + header * 60_000)
    for verb in VERBS:
        ended = put(verb, path, tmp_path)
        assert_refused(ended, "is truncated")


# Real core images, damaged


@once
@pytest.mark.parametrize(
    "part",
    [
        "header",
        "program headers",
        "registers",
        "VMCOREINFO",
        "manifest",
        "debug info's table",
        "debug info",
        "packed memory's table",
        "packed memory",
        "memory",
    ],
)
def test_a_damaged_core_image(
    dead: DeadMachine, core_image: Path, part: str, tmp_path: Path
) -> None:
    whole = core_image.read_bytes()
    if part not in spans(core_image):
        assert dead.scenario.architecture is not X86_64
        pytest.skip("there is no packed memory, since nothing is unwound by tables")
    start, end = spans(core_image)[part]
    path = tmp_path / "damaged.core"
    verbs = list(VERBS)
    for seed in range(settings.default.max_examples // 6):
        data = bytearray(whole)
        damage(data, start, end, random.Random(f"{part} {seed}"))
        path.write_bytes(data)
        ended = put(verbs[seed % len(verbs)], path, tmp_path, *dead.options)
        assert_ended_well(ended)


@once
@pytest.mark.parametrize("verb", ["info", "report", "redact"])
@pytest.mark.parametrize("what", FORGERIES)
def test_a_forged_manifest(
    dead: DeadMachine, core_image: Path, tmp_path: Path, what: str, verb: str
) -> None:
    """A hundred thousand of something cost little time, and few lines."""
    path = tmp_path / "forged.core"
    path.write_bytes(forge(core_image, FORGERIES[what]))
    options = ("-o", str(tmp_path / "output")) if verb == "redact" else ()
    ended = run(verb, path, *dead.options, *options)
    assert_ended_well(ended)
    assert len(ended.out.splitlines()) < 1000
    assert len(ended.lines) < 20
    if verb == "redact" and what == "regions":  # Each would be copied.
        assert_refused(ended, "the same memory many times")
    elif verb == "report" or (verb == "info" and what == "areas"):
        assert f"{COUNT - 256} more {what}" in ended.out


def with_two_billion(core_image: Path, name: str) -> bytes:
    """Return a core image whose kernel has a count that no machine has."""
    target = open_target(str(core_image))
    kernel = attach(target)
    at = image_address(kernel.vmcoreinfo, kernel.prog.symbol(name).address)
    target.close()
    data = bytearray(core_image.read_bytes())
    with read_core(core_image) as image:
        extents = find_extents(image.headers, image.size, image.name)
        held = next(it for it in extents if it.address <= at < it.address + it.size)
    offset = held.offset + at - held.address
    data[offset : offset + 4] = b"\xff\xff\xff\x7f"
    return bytes(data)


@each_architecture
def test_interrupts_without_end(
    dead: DeadMachine, core_image: Path, tmp_path: Path
) -> None:
    """A line for each of two billion numbers would take all memory and time."""
    path = tmp_path / "damaged.core"
    path.write_bytes(with_two_billion(core_image, "nr_irqs"))
    ended = run("ask", path, "irq")
    assert ended.status == 1
    assert "2147483647 interrupts, expected at most 65536" in ended.err
    for verb in ("capture", "report"):
        assert_ended_well(put(verb, path, tmp_path))


@each_architecture
def test_cpus_without_end(dead: DeadMachine, core_image: Path, tmp_path: Path) -> None:
    """The masks tell which CPUs there are: nothing is lost, and no time."""
    path = tmp_path / "damaged.core"
    path.write_bytes(with_two_billion(core_image, "nr_cpu_ids"))
    questions = ("ps", "irq", "runq", "timer", "bt -a", "kmem -i")
    damaged, whole = (run("ask", it, *questions) for it in (path, core_image))
    assert (damaged.status, damaged.out) == (whole.status, whole.out)
    for verb in ("capture", "info", "report"):
        ended = put(verb, path, tmp_path)
        assert_ended_well(ended)
        assert ended.status in (0, 1), ended


@each_architecture
def test_damaged_pointers(dead: DeadMachine, core_image: Path, tmp_path: Path) -> None:
    """Lists that loop or lead astray, tables that point to themselves."""
    whole = core_image.read_bytes()
    places = kernel_pointers(whole, *spans(core_image)["memory"])
    path = tmp_path / "damaged.core"
    for seed in range(settings.default.max_examples // 8):
        data = bytearray(whole)
        move_pointers(data, places, random.Random(seed))
        path.write_bytes(data)
        for verb in ("ask", "report"):
            ended = put(verb, path, tmp_path)
            assert_ended_well(ended)


@each_architecture
def test_tasks_in_a_circle(dead: DeadMachine, core_image: Path, tmp_path: Path) -> None:
    """Which the first task, where a walk would end, is no part of."""
    target = open_target(str(core_image))
    third = attach(target).prog["init_task"].tasks.next.next.next
    place, first = third.next.address_of_().value_(), third.prev.prev.value_()
    target.close()
    data = bytearray(core_image.read_bytes())
    image = parse_core(lambda at, count: data[at : at + count], len(data), "core")
    [at] = [
        load.offset + place - load.vaddr
        for load in image.headers
        if load.type == PT_LOAD and 0 <= place - load.vaddr < load.filesz
    ]
    data[at : at + 8] = first.to_bytes(8, "little")
    path = tmp_path / "circle.core"
    path.write_bytes(data)
    target = open_target(str(path))
    pids = list(readable_pids(attach(target).prog))
    target.close()
    assert pids[0] == 0
    assert 3 <= len(pids) == len(set(pids)) < 20


@each_architecture
def test_a_truncated_core_image(
    dead: DeadMachine, core_image: Path, tmp_path: Path
) -> None:
    whole = core_image.read_bytes()
    path = tmp_path / "truncated.core"
    verbs = cycle(("info", "ask", "report"))
    edges = {edge for span in spans(core_image).values() for edge in span}
    lengths = {edge + step for edge in edges for step in (-1, 0, 1)}
    lengths |= set(range(0, len(whole), len(whole) // 20))
    for length in sorted(lengths & set(range(len(whole)))):
        path.write_bytes(whole[:length])
        assert_refused(put(next(verbs), path, tmp_path), ".")
    path.write_bytes(whole[:-5000])
    refused = put("ask", path, tmp_path)
    assert_refused(refused, "5000 are missing, copy it again; --damaged goes on")
    ended = put("ask", path, tmp_path, "--damaged")
    assert_ended_well(ended)
    assert f"RELEASE: {dead.machine.setup.kernel.release}" in ended.out


@each_architecture
def test_whole_it_is_good(dead: DeadMachine, core_image: Path, tmp_path: Path) -> None:
    """Or all the above would prove nothing."""
    with read_core(core_image) as core:
        assert core.manifest is not None
    for verb in VERBS:
        ended = put(verb, core_image, tmp_path)
        assert ended.status == 0, ended
