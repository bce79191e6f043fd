# SPDX-License-Identifier: GPL-2.0-or-later
"""
A VM that is marked from its host, dies, and is dumped by its firmware.

The firmware leaves each of its three shapes. What the whole memory answers, each of
them answers, collected: a kernel was marked while it was healthy, and nobody has looked
at it since it was dead.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from kmemdump.arch.architecture import image_address
from kmemdump.cli.shared.agent_output import run_folder
from kmemdump.coreimage import read_core
from kmemdump.formats.kinfo import parse_kinfo
from kmemdump.kernel.attach import attach
from kmemdump.lab import (
    AARCH64,
    X86_64,
    Architecture,
    CrashType,
    Machine,
    Setup,
    crash_guest,
)
from kmemdump.lab.firmware import Firmware
from kmemdump.lab.reserved import kinfo_range, scratch_range
from kmemdump.lab.snapshots import Snapshots
from kmemdump.marking.lock import lock_table, table_name
from kmemdump.opening import open_target
from rigs.crash_compare import compare
from rigs.dumps import answers
from rigs.programs import KMEMDUMP, run_kmemdump

SHAPES = ("folder", "image", "device")
QUESTIONS = ("sys", "log", "ps", "bt -a", "bt 1", "irq", "runq", "mod", "mount", "dev")
CRASH = ("sys", "log", "ps", "irq", "runq", "mod", "mount", "dev")
"""
What crash, too, is to say of both. Not bt: it reads the text of what is on the stack of
the CPU that dies, which nobody knows beforehand.
"""
DESCRIPTION = ("KELF", "Kvmcorein", "CPUS")
"""Files that are no memory of the kernel's; without an address they have no place."""


def places(machine: Machine) -> tuple[str, ...]:
    """Where memory is reserved, where no device tree tells."""
    if machine.setup.architecture.device_tree:
        return ()
    where = scratch_range(machine.setup.architecture)
    return ("--scratch", f"{where.start:#x}:{where.size:#x}")


def registered(machine: Machine) -> list[dict[str, object]]:
    listed = run_kmemdump("regions", f"qmp:{machine.qmp}", "--json")
    rows: list[dict[str, object]] = json.loads(listed.stdout)["regions"]
    return rows


@contextmanager
def marking(machine: Machine) -> Iterator[Callable[[], str]]:
    """Stay and mark; the function waits for the next look."""
    target = f"qmp:{machine.qmp}"
    options = (
        "--no-encryption",
        "--daemon",
        "--refresh",
        "0.2",
        "--keep",
        *places(machine),
    )
    marker = subprocess.Popen(
        [*KMEMDUMP, "mark", target, *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert marker.stdout is not None
    try:
        yield marker.stdout.readline
    finally:
        marker.kill()
        marker.communicate()


@dataclass(frozen=True)
class Case:
    """Not a Scenario: one on aarch64 is in every run."""

    series: str
    death: CrashType
    arch: Architecture

    def __str__(self) -> str:
        return f"{self.series}-{self.arch.name}-{self.death}"


CASES = [
    pytest.param(Case("6.1", CrashType.PANIC, X86_64), id="6.1-x86_64-panic"),
    pytest.param(Case("6.12", CrashType.SPIN, AARCH64), id="6.12-aarch64-spin"),
    *(
        pytest.param(
            Case(series, death, arch),
            id=f"{series}-{arch.name}-{death}",
            marks=pytest.mark.matrix,
        )
        for series, death, arch in (
            ("6.1", CrashType.SPIN, X86_64),
            ("6.12", CrashType.PANIC, X86_64),
            ("6.12", CrashType.SPIN, X86_64),
            ("6.12", CrashType.PANIC, AARCH64),
        )
    ),
]


@dataclass
class Dumped:
    """What is left of a machine."""

    case: Case
    folder: Path
    names: list[str]
    """Of the files that firmware left."""
    vmlinux: Callable[[], Path]

    def core(self, shape: str) -> Path:
        return self.folder / f"{shape}.core"

    @property
    def concatenation(self) -> Path:
        """The files of the regions, one after the other, as ``cat`` would."""
        path = self.folder / "concatenation.core"
        with path.open("wb") as output:
            for name in self.names[:-1]:  # Not CPUS, which is the firmware's own.
                output.write((self.folder / "folder" / name).read_bytes())
        return path

    @property
    def full(self) -> Path:
        return self.folder / "full.elf"


@pytest.fixture(scope="module")
def dumped(
    request: pytest.FixtureRequest,
    snapshots: Snapshots,
    make_setup: Callable[..., Setup],
    vmlinux: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Dumped]:
    case: Case = request.param
    folder = tmp_path_factory.mktemp(str(case))
    setup = make_setup(case.series, architecture=case.arch, firmware=True)
    with snapshots.machine(setup) as machine:
        with marking(machine) as look:
            assert " regions, " in look()
            crash_guest(machine, case.death)
            if case.death is CrashType.SPIN:
                look()  # It may have begun before.
                look()  # Nobody notices that one CPU spins but who waits for it.
            machine.pause()
        firmware = Firmware(machine)
        assert firmware.refused == []
        firmware.leave_folder(folder / "folder")
        firmware.leave_image(folder / "image")
        sources = [str(folder / "folder"), str(folder / "image")]
        with firmware.device(folder / "socket"):
            sources.append(f"sahara:{folder / 'socket'}")
            for shape, source in zip(SHAPES, sources, strict=True):
                core = folder / f"{shape}.core"
                collected = run_kmemdump("collect", source, "-o", core)
                assert (collected.returncode, collected.stderr.strip()) == (0, "")
        machine.full_dump(folder / "full.elf")
        names = firmware.names
        firmware.close()
    yield Dumped(case, folder, names, lambda: vmlinux(case.series, case.arch))
    (folder / "full.elf").unlink()


each_case = pytest.mark.parametrize("dumped", CASES, indirect=True)


@pytest.mark.vm
@each_case
def test_answers(dumped: Dumped) -> None:
    expected = answers(dumped.full, QUESTIONS)
    assert len(expected["ps"].splitlines()) > 200
    death = "lab_spin" if dumped.case.death is CrashType.SPIN else "sysrq_handle_crash"
    assert death in expected["bt -a"]
    for shape in SHAPES:
        assert answers(dumped.core(shape), QUESTIONS) == expected, shape


@pytest.mark.vm
@each_case
def test_answers_with_debug_info(dumped: Dumped) -> None:
    expected = answers(dumped.full, QUESTIONS, dumped.vmlinux())
    assert answers(dumped.core("folder"), QUESTIONS, dumped.vmlinux()) == expected


@pytest.mark.vm
@each_case
def test_three_shapes_have_the_same_memory(dumped: Dumped) -> None:
    """And it is that of the machine."""
    assert len(dumped.names) == len(set(dumped.names)) > 100
    full = open_target(str(dumped.full))
    contents = []
    for shape in SHAPES:
        with read_core(dumped.core(shape)) as image:
            found = {}
            for region in image.manifest.regions:
                if region.name not in DESCRIPTION:
                    data = image.memory.read(region.address, region.size)
                    assert data == full.memory.read(region.address, region.size)
                    found[region.name] = (region.address, data)
            contents.append(found)
    full.close()
    assert len(contents[0]) == len(dumped.names) - len(DESCRIPTION)
    assert contents[0] == contents[1] == contents[2]


def release_of(core: Path) -> str:
    target = open_target(str(core))
    try:
        return target.vmcoreinfo().osrelease
    finally:
        target.close()


def check_gdb(dumped: Dumped, core: Path) -> None:
    """gdb, not changed by us, reads the kernel's variables."""
    target = open_target(str(core))
    offset, release = target.vmcoreinfo().kernel_offset, target.vmcoreinfo().osrelease
    target.close()
    gdb = "gdb" if dumped.case.arch.name == platform.machine() else "gdb-multiarch"
    script = (
        f"symbol-file -o {offset:#x} {dumped.vmlinux()}",
        f"core-file {core}",
        'printf "%s\\n", init_uts_ns.name.release',
        'printf "%.200s\\n", prb->text_data_ring.data + 8',
    )
    arguments = [part for text in script for part in ("-ex", text)]
    said = subprocess.run(
        [gdb, "-nx", "-batch", "-iex", "set auto-load off", *arguments],
        capture_output=True,
        text=True,
    )
    assert release in said.stdout.splitlines(), said.stderr


def check_drgn(core: Path, *options: str | Path) -> None:
    """drgn, with kmemdump's plugin, reads the kernel's variables."""
    drgn = Path(sys.executable).with_name("drgn")
    text = "print(prog['init_uts_ns'].name.release.string_().decode())"
    asked = subprocess.run(
        [drgn, "--no-default-symbols", *options, "-q", "-c", core, "-e", text],
        capture_output=True,
        text=True,
    )
    assert asked.stdout.strip() == release_of(core), asked.stderr


@pytest.mark.vm
@each_case
def test_concatenation(dumped: Dumped) -> None:
    """No tool of ours is needed to make a core of the regions' files."""
    core = dumped.concatenation
    check_gdb(dumped, core)
    check_drgn(core, "-s", dumped.vmlinux())
    asked = run_kmemdump("ask", core, "log", "ps")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout == "".join(answers(dumped.full, ("log", "ps")).values())


@pytest.mark.vm
@each_case
def test_other_debuggers(dumped: Dumped) -> None:
    core = dumped.core("folder")
    check_gdb(dumped, core)
    check_drgn(core)

    if (dumped.case.series, dumped.case.arch) == ("6.1", X86_64):
        result = compare(dumped.vmlinux(), dumped.full, core, CRASH)
        assert set(CRASH) <= set(result.identical), result.different


def check_kinfo(machine: Machine, vmlinux: Path) -> None:
    """Without debug info, all addresses are found that debug info tells."""
    target = f"qmp:{machine.qmp}"
    lost = run_kmemdump("mark", target, "--backend", "kinfo")
    assert lost.returncode == 3
    assert "no device tree reserves memory for a kinfo" in lost.stderr
    place = kinfo_range(machine.setup.architecture)
    where = ("--backend", "kinfo", "--kinfo", f"{place.start:#x}:{place.size:#x}")
    with lock_table(run_folder(os.environ), table_name(target, "kinfo", place.start)):
        for options in (), ("--off",):
            refused = run_kmemdump("mark", target, *where, *options)
            assert refused.returncode == 3
            assert (
                f"process {os.getpid()} already writes to this table" in refused.stderr
            )
    marked = run_kmemdump("mark", target, *where, "--json")
    assert (marked.returncode, marked.stderr) == (0, "")
    told = json.loads(marked.stdout)
    assert told["kinfo"] == hex(place.start)
    assert (told["refused"], told["missing"]) == ([], [])
    opened = open_target(target)
    kinfo = parse_kinfo(opened.memory.read(place.start, place.size), "kinfo")
    kernel = attach(opened, vmlinux=vmlinux)
    assert all(kinfo.addresses.values())
    assert told["addresses"] == {name: hex(at) for name, at in kinfo.addresses.items()}
    for name in kinfo.addresses:
        if name == "swapper_pg_dir":  # A macro on x86.
            symbol = kernel.vmcoreinfo.symbol(name)
        else:
            symbol = kernel.prog.symbol(name).address
        assert kinfo.addresses[name] == image_address(kernel.vmcoreinfo, symbol), name
    assert kinfo.num_syms == kernel.prog.read_u32(
        kernel.prog.symbol("kallsyms_num_syms").address
    )
    assert kinfo.checksum_ok
    opened.close()
    assert run_kmemdump("mark", target, *where, "--off").returncode == 0
    assert (
        run_kmemdump("regions", target, "--kinfo", f"{place.start:#x}").returncode == 3
    )


@pytest.mark.vm
def test_marks_come_and_go(
    booted: Callable[..., Machine], vmlinux: Callable[..., Path]
) -> None:
    machine = booted("6.12", firmware=True)
    target = f"qmp:{machine.qmp}"
    refused = run_kmemdump("mark", target)
    assert refused.returncode == 1
    assert "no scratch memory of 8040 bytes or more" in refused.stderr
    used = run_kmemdump("mark", target, "--scratch", "0x1000000:0x10000")
    assert used.returncode == 2
    assert "is memory that the kernel uses" in used.stderr

    where = places(machine)
    marked = run_kmemdump("mark", target, "--no-encryption", *where)
    assert (marked.returncode, marked.stderr) == (0, "")
    rows = registered(machine)
    assert 100 < len(rows) <= 201
    assert [row["name"] for row in rows[:2]] == ["KELF", "Kvmcorein"]
    assert len({row["name"] for row in rows}) == len(rows)

    # Another run, with less in it, takes over.
    smaller = run_kmemdump("mark", target, *where, "--area", "kmsg", "--json")
    assert smaller.returncode == 0
    held = registered(machine)
    assert 2 < len(held) < len(rows)
    told = json.loads(smaller.stdout)
    described = held[2:]  # Behind what describes the dump.
    assert (told["version"], told["target"]) == (1, target)
    assert told["regions"] == told["added"] == len(described)
    assert told["bytes"] == sum(row["size"] for row in described)
    assert [area["name"] for area in told["areas"]] == ["coreinfo", "kmsg"]
    assert all(area["fits"] for area in told["areas"])
    assert (told["refused"], told["problems"]) == ([], [])
    assert told["seconds"] > 0

    off = run_kmemdump("mark", target, "--off", "--json", *where)
    assert off.returncode == 0
    assert json.loads(off.stdout)["text"] == "nothing of ours is registered any more"
    assert registered(machine) == []

    staying = subprocess.Popen(
        [*KMEMDUMP, "mark", target, *where, "--daemon", "--refresh", "0.1", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert staying.stdout is not None
    assert json.loads(staying.stdout.readline())["added"] > 100
    machine.run("sleep 1000 & echo")
    look = json.loads(staying.stdout.readline())
    assert look["regions"] > 100
    assert look["problems"] == []
    staying.send_signal(signal.SIGTERM)
    out, _ = staying.communicate(timeout=60)
    assert staying.returncode == 0
    last = json.loads(out.splitlines()[-1])
    assert (last["target"], last["text"]) == (
        target,
        "stopped; the regions are taken off",
    )
    assert registered(machine) == []

    check_kinfo(machine, vmlinux("6.12"))

    planned = run_kmemdump("areas", target, "--backend", "minidump")
    assert planned.returncode == 0
    assert re.search(r"^ +all .* 199 regions, room for 199", planned.stdout, re.M)
    few = run_kmemdump(
        "areas", target, "--backend", "minidump", "--rows", "12", "--json"
    )
    assert few.returncode == 1
    plan = json.loads(few.stdout)
    assert plan["regions"] <= 10
    assert any("extra bytes" in (area["reason"] or "") for area in plan["areas"])
