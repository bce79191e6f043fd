# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that the crash kernel cannot read: what is around it is copied."""

import itertools
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from kmemdump.backends.elf_header_region import Description
from kmemdump.backends.kdump import KdumpBackend
from kmemdump.cli import main
from kmemdump.collect.source import Options, open_source
from kmemdump.errors import NotCapturedError
from kmemdump.marking.registry import Registry
from kmemdump.memory.ranges import Region
from kmemdump.opening import open_target
from rigs.copier import INFO, LIST, MARKED, Ram, run_copier, write_vmcore

PAGE = 4096
START, SIZE = LIST.end + 0x800, 12 * PAGE  # From the middle of a page to another's.
BEHIND = (START + SIZE + PAGE, 0x100)
DIRECT_MAP = 0xFFFF888000000000


def marked() -> Ram:
    """Return a machine with a region of 13 pages, and one behind it."""
    ram = Ram()
    ram.data[LIST.size :] = os.urandom(len(ram.data) - LIST.size)
    registry = Registry(
        description=Description(62, INFO, direct_map=DIRECT_MAP, marked=MARKED)
    )
    registry.attach(KdumpBackend(ram, LIST))
    registry.update(
        [
            Region(0, "large", START, SIZE),
            Region(0, "behind", *BEHIND),
        ]
    )
    return ram


def write_with_bad_pages(path: Path, ram: Ram, bad: set[int], *, hole: bool) -> None:
    """
    Write a vmcore.

    :param bad: Numbers of the pages behind the list that cannot be read.
    :param hole: Whether they are no memory; else there is nothing in the file.
    """
    pages = range((ram.range.size - LIST.size) // PAGE)
    memory, lost = [(LIST.start, ram.read(LIST.start, LIST.size))], []
    for is_bad, group in itertools.groupby(pages, bad.__contains__):
        run = list(group)
        at = LIST.end + run[0] * PAGE
        if is_bad and hole:
            continue
        lost += [len(memory)] if is_bad else []
        memory.append((at, ram.read(at, len(run) * PAGE)))
    write_vmcore(path, memory)
    with open(path, "r+b") as file:
        for number in lost:  # p_offset; the notes have the first header.
            file.seek(64 + 56 * (number + 1) + 8)
            file.write(struct.pack("<Q", 1 << 40))


def bytes_on(pages: set[int]) -> int:
    """Return how many bytes of the large region are on some pages."""
    return sum(
        max(0, min(START + SIZE, at + PAGE) - max(START, at))
        for at in (LIST.end + page * PAGE for page in pages)
    )


@pytest.mark.parametrize("hole", [True, False], ids=["hole", "error"])
@pytest.mark.parametrize(
    ("bad", "headers"),
    [
        ({5}, 3),
        ({0}, 2),
        ({12}, 2),
        ({0, 1, 6, 7, 8, 11}, 4),
        ({1, 3, 5, 7, 9, 11}, 8),
        (set(range(13)), 2),
    ],
    ids=lambda it: str(it) if isinstance(it, int) else "-".join(map(str, it)),
)
@pytest.mark.parametrize("kind", ["file", "raw"])
def test_all_else_is_copied(copier, tmp_path, capsys, kind, bad, headers, hole):
    ram, vmcore, out = marked(), tmp_path / "vmcore", tmp_path / "out"
    write_with_bad_pages(vmcore, ram, bad, hole=hole)
    if kind == "raw":
        out.write_bytes(b"Raw_Dmp!".ljust(1 << 20, b"\0"))
    place = f"as:{out}" if kind == "file" else f"raw:{out}"
    done = run_copier(copier, f"vmcore={vmcore}", f"to={place}")
    missing = f"{bytes_on(bad)} bytes of the regions could not be read"
    assert (done.returncode, missing in done.stderr) == (1, True), done
    assert "2 regions" in done.stderr
    core = tmp_path / "core"
    assert main(["collect", str(out), "-o", str(core)]) == 1
    said = capsys.readouterr().err
    assert missing in said
    assert "checksum" not in said
    with open_source(str(out), Options()) as source:
        check(source.memory, ram, bad)
    with open_target(str(core)) as target:
        check(target.memory, ram, bad)
    if kind == "file":
        # Unused headers are no part of the file's table.
        assert struct.unpack_from("<H", out.read_bytes(), 56) == (1 + headers,)


def check(memory, ram: Ram, bad: set[int]) -> None:
    """Check each page of the region that is there, and that no other one is."""
    for page in range(13):
        start = max(START, LIST.end + page * PAGE)
        size = min(START + SIZE, LIST.end + (page + 1) * PAGE) - start
        if page in bad:
            with pytest.raises(NotCapturedError):
                memory.read(start, size)
        else:
            assert memory.read(start, size) == ram.read(start, size)
    assert memory.read(*BEHIND) == ram.read(*BEHIND)


def test_drgn_reads_around_it(copier, tmp_path):
    ram, vmcore, out = marked(), tmp_path / "vmcore", tmp_path / "out"
    write_with_bad_pages(vmcore, ram, {0, 5, 9}, hole=False)
    run_copier(copier, f"vmcore={vmcore}", f"to=as:{out}")
    script = """
import sys, drgn
prog = drgn.Program()
prog.set_core_dump(sys.argv[1])
for physical in (True, False):
    for page in range(13):
        at = int(sys.argv[2 if physical else 3]) + page * 4096
        try:
            print(prog.read(at, 2048, physical).hex())
        except drgn.FaultError:
            print("fault")
"""
    virtual = DIRECT_MAP + LIST.end
    argv = [sys.executable, "-c", script, str(out), str(LIST.end), str(virtual)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert not done.returncode, done.stderr
    # The region starts and ends in the middle of a page.
    expected = [
        "fault",
        *(ram.read(LIST.end + i * PAGE, 2048).hex() for i in range(1, 13)),
    ]
    for page in (5, 9):
        expected[page] = "fault"
    assert done.stdout.split() == [*expected, *expected]


def test_with_too_many_the_rest_of_the_region_is_missing(copier, tmp_path):
    ram, vmcore, out = Ram(), tmp_path / "vmcore", tmp_path / "out"
    registry = Registry(description=Description(62, INFO))
    registry.attach(KdumpBackend(ram, LIST))
    start, count = 1 << 30, 400
    registry.update([Region(0, "large", start, count * PAGE)])
    # Each second page is missing.
    pieces = [(start + i * PAGE, bytes([i % 255]) * PAGE) for i in range(0, count, 2)]
    write_vmcore(vmcore, [(LIST.start, bytes(ram.data)), *pieces])
    done = run_copier(copier, f"vmcore={vmcore}", f"to=as:{out}")
    assert done.returncode == 1
    found = int(done.stderr.split(" bytes of the regions")[0].split()[-1])
    assert found == (count - 129) * PAGE
    with open_source(str(out), Options()) as target:
        assert [it for it in target.dump.warnings if "checksum" in it] == []
        for address, data in pieces[:129]:
            assert target.memory.read(address, PAGE) == data
