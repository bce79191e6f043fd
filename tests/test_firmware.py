# SPDX-License-Identifier: GPL-2.0-or-later
"""
A VM that is marked from its host, dies, and is dumped by its firmware.

The firmware leaves each of its three shapes. What the whole memory answers, each of
them answers, collected: a kernel was marked while it was healthy, and nobody has looked
at it since it was dead.
"""

from __future__ import annotations

import platform
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from kmemdump.coreimage import read_core
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
from kmemdump.opening import open_target
from rigs.crash_compare import compare
from rigs.dumps import answers
from rigs.firmware_machine import places
from rigs.programs import KMEMDUMP, run_kmemdump
from rigs.snapshots import Snapshots

PATIENCE = 300
"""Seconds for a look; the host may be busy."""
SHAPES = ("folder", "image", "device")
QUESTIONS = ("sys", "log", "ps", "bt -a", "bt 1", "irq", "runq", "mod", "mount", "dev")
CRASH = ("sys", "log", "ps", "irq", "runq", "mod", "mount", "dev")
"""
What crash, too, is to say of both. Not bt: it reads the text of what is on the stack of
the CPU that dies, which nobody knows beforehand.
"""
DESCRIPTION = ("KELF", "Kvmcorein", "CPUS")
"""Files that are no memory of the kernel's; without an address they have no place."""


class Marker:
    """A process that stays, and marks."""

    def __init__(self, machine: Machine) -> None:
        options = (
            "--no-encryption",
            "--daemon",
            "--interval",
            "0.2",
            "--leave-registered",
        )
        self.process = subprocess.Popen(
            [*KMEMDUMP, "mark", f"qmp:{machine.qmp}", *options, *places(machine)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line)

    def wait_for_look(self) -> str:
        """Wait for a look that begins from now on."""
        while not self._lines.empty():
            self._lines.get()
        self._lines.get(timeout=PATIENCE)  # It may have begun before.
        return self._lines.get(timeout=PATIENCE)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()


@contextmanager
def marking(machine: Machine) -> Iterator[Marker]:
    marker = Marker(machine)
    try:
        yield marker
    finally:
        marker.end()


@dataclass(frozen=True)
class Case:
    """Not a Scenario: one on aarch64 is in every run."""

    series: str
    death: CrashType
    arch: Architecture

    def __str__(self) -> str:
        return f"{self.series}-{self.arch.name}-{self.death}"


CASES = [
    pytest.param(Case("6.12", CrashType.SPIN, AARCH64), id="6.12-aarch64-spin"),
    *(
        pytest.param(
            Case(series, death, arch),
            id=f"{series}-{arch.name}-{death}",
            marks=pytest.mark.matrix,
        )
        for series, death, arch in (
            ("6.12", CrashType.PANIC, X86_64),
            ("6.1", CrashType.SPIN, X86_64),
            ("6.1", CrashType.PANIC, X86_64),
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
        with marking(machine) as marker:
            assert " regions, " in marker.wait_for_look()
            crash_guest(machine, case.death)
            if case.death is CrashType.SPIN:
                # Nobody notices that one CPU spins but who waits for it.
                marker.wait_for_look()
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
