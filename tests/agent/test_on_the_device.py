# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent at work inside of machines that die."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from kmemdump.backends.minidump import MinidumpBackend
from kmemdump.cli import main
from kmemdump.coreimage import read_core
from kmemdump.errors import IncompleteAnswerError, NotCapturedError
from kmemdump.firmware.minidump_table import read_table
from kmemdump.kernel.attach import attach
from kmemdump.lab import (
    AARCH64,
    X86_64,
    CrashType,
    Machine,
    build_modules,
    crash_guest,
    python_image,
)
from kmemdump.lab.firmware import Firmware
from kmemdump.lab.reserved import scratch_range, smem_range
from kmemdump.memory.mapped import MappedMemory
from kmemdump.memory.ranges import Range, Region
from kmemdump.opening import open_target
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import attempt
from kmemdump.targets.writable import open_writable
from kmemdump.text import format_duration
from rigs.units import needs_systemd, verify

KMOD = Path(__file__).parents[2] / "kmod"
QUESTIONS = ("log", "sys", "ps", "bt -a", "irq", "mod")
RING = 4 * 4096
CAPABILITIES = {"CAP_SYS_RAWIO": 17}
UNIT = KMOD.parent / "systemd/kmemdump.service"
LEAST = (
    "import ctypes, os, sys; libc = ctypes.CDLL(None); "
    # PR_CAPBSET_DROP and PR_SET_NO_NEW_PRIVS
    f"[libc.prctl(24, it, 0, 0, 0) for it in range(64) if it not in "
    f"{tuple(CAPABILITIES.values())!r}]; libc.prctl(38, 1, 0, 0, 0); "
    'os.execv(sys.executable, [sys.executable, "-m", "kmemdump", *sys.argv[1:]])'
)


@pytest.fixture(scope="module")
def start_device(snapshots, make_setup, lab_cache, lab_kernel):
    """``start_device()`` has firmware, Python, and the module kmemdump."""

    @contextmanager
    def start(architecture=X86_64, *, kernel="6.12", **fields) -> Iterator[Device]:
        package = lab_kernel(kernel, architecture)
        sources = [it for it in KMOD.iterdir() if it.suffix in (".c", ".h")]
        built = build_modules(
            lab_cache, package, "kmemdump_kmod", [*sorted(sources), KMOD / "Kbuild"]
        )
        setup = make_setup(
            kernel,
            architecture=architecture,
            firmware=True,
            python=python_image(lab_cache, architecture),
            files=tuple(sorted(built.glob("*.ko"))),
            **fields,
        )
        with snapshots.machine(setup) as machine:
            yield Device(machine)

    return start


@pytest.fixture
def device(start_device):
    """``device()`` is such a machine, gone after the test."""
    with ExitStack() as stack:
        yield lambda **fields: stack.enter_context(start_device(**fields))


class Device:
    """A machine and the agent in it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.run = partial(machine.run, timeout=300)
        smem, scratch = (
            it(machine.setup.architecture) for it in (smem_range, scratch_range)
        )
        self.places = ""
        if not machine.setup.architecture.device_tree:
            self.places = (
                f"--smem {smem.start:#x}:{smem.size:#x} "
                f"--scratch {scratch.start:#x}:{scratch.size:#x}"
            )
        self.table = f"live-minidump-{smem.start:x}"

    def kmemdump(self, arguments: str, status: int = 0) -> str:
        """Run a verb in the guest."""
        return self.run(f"kmemdump {arguments} || [ $? = {status} ]")

    def start(self, options: str = "") -> None:
        """
        Start the agent, with the rights of its unit; wait until it has marked.

        Its standard input is opened before, as systemd does.
        """
        arguments = f"mark live {self.places} --no-encryption --daemon {options}"
        # What it says has a file before it runs: it is read at once.
        self.run(
            f": >/run/said; chroot /python /usr/bin/python3 -c '{LEAST}' {arguments} "
            "</proc/iomem >>/run/said 2>&1 &"
        )
        self.wait(lambda status: status is not None)

    def status(self) -> dict[str, object] | None:
        text = self.run(f"cat /run/kmemdump/{self.table}.json 2>/dev/null || true")
        return json.loads(text) if text.startswith("{") else None

    def wait(self, wanted: Callable[[dict[str, object] | None], bool]) -> dict:
        for _ in range(300):
            status = self.status()
            if wanted(status):
                return status
            assert "kmemdump: error" not in self.said()
            time.sleep(1)
        raise AssertionError(f"waited in vain: {status}; {self.said()}")

    def refresh(self, signal: str = "USR1") -> None:
        """Ask for a look, and wait for it."""
        before = self.status()
        self.run(f"kill -{signal} {before['pid']}")
        self.wait(lambda status: status["refreshes"] > before["refreshes"])

    def stop(self) -> str:
        """Tell the agent to end; return the last that it says."""
        self.run(f"kill {self.status()['pid']}")
        for _ in range(300):
            if "stopped" in self.said():
                break
            time.sleep(1)
        return self.said().splitlines()[-1]

    def said(self) -> str:
        return self.run("cat /run/said")


def answers(target: str, *options) -> dict[str, str]:
    opened = open_target(target)
    try:
        prog = attach(opened).prog
        found = {}
        for text in QUESTIONS:
            said, problem = attempt(prog, command(text))
            # A task that came after the last look is not there.
            lacks = isinstance(problem, NotCapturedError | IncompleteAnswerError)
            assert problem is None or lacks, problem
            found[text] = said.replace(target, "DUMP")
        return found
    finally:
        opened.close()


def test_the_unit_has_the_rights_that_are_tested():
    found = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert set(found[1].split()) == set(CAPABILITIES)


def test_what_the_unit_opens_for_it():
    """CAP_SYS_ADMIN is in no unit."""
    text = UNIT.read_text()
    assert re.findall("^StandardInput=(.*)$", text, re.M) == ["file:/proc/iomem"]


@needs_systemd
def test_exposure():
    # Of 10; a plain unit has 9.6.
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    done = subprocess.run([*argv, "--threshold=16", str(UNIT)], capture_output=True)
    assert done.returncode == 0, done.stdout[-200:]


@needs_systemd
def test_systemd_understands_the_unit(tmp_path):
    assert verify(UNIT, tmp_path) == (0, "")


def test_the_units_configuration(tmp_path, capsys):
    """As it is shipped, and with everything in it."""
    text = (UNIT.parent / "mark.toml").read_text()
    path = tmp_path / "mark.toml"
    for content in (text, re.sub(r"^#(?=[a-z])", "", text, flags=re.MULTILINE)):
        path.write_text(content)
        assert main(["mark", "nosuch", "--daemon", "--config", str(path)]) == 3
        assert "nosuch: No such file" in capsys.readouterr().err


LAST_WORDS = "the last words of a driver"


@dataclass
class Life:
    """What was seen of a machine that marked itself and died, and what is left."""

    death: CrashType
    statuses: list[dict]
    """Of its agent: when it had started, and after it was asked to look again."""
    refused: str
    """What a second agent said."""
    said: str
    """What the first one said."""
    newest: int
    """Process id of the task that was there when the agent looked last."""
    core: Path
    expected: dict[str, str]
    """Answers of the whole memory."""
    found: dict[str, str]
    """Answers of the core image that was collected."""

    @property
    def culprit(self) -> str:
        return "lab_spin" if self.death is CrashType.SPIN else "sysrq_handle_crash"


@pytest.fixture(
    scope="module",
    params=[
        # An emulated machine with Python takes a minute to boot and look at itself.
        *(
            pytest.param(which, id=name, marks=pytest.mark.matrix)
            for name, which in {
                "x86_64-panic": (X86_64, CrashType.PANIC, "6.12"),
                "x86_64-spin": (X86_64, CrashType.SPIN, "6.12"),
                "aarch64-panic": (AARCH64, CrashType.PANIC, "6.12"),
                "aarch64-spin": (AARCH64, CrashType.SPIN, "6.12"),
                "x86_64-generic": (X86_64, CrashType.PANIC, "6.12-generic"),
                "x86_64-generic-spin": (X86_64, CrashType.SPIN, "6.12-generic"),
                "aarch64-generic": (AARCH64, CrashType.PANIC, "6.12-generic"),
                "aarch64-generic-spin": (AARCH64, CrashType.SPIN, "6.12-generic"),
            }.items()
        ),
    ],
)
def life(request, start_device, tmp_path_factory):
    architecture, death, kernel = request.param
    folder = tmp_path_factory.mktemp("life")
    core, full = folder / "core", folder / "full.elf"
    with start_device(architecture, kernel=kernel) as it:
        # 1. A driver registers memory of its own; then the agent marks.
        it.run("insmod /files/kmemdump.ko && insmod /files/kmemdump_sample.ko")
        say = "/sys/module/kmemdump_sample/parameters/say"
        it.run(f"echo -n '{LAST_WORDS}' >{say}")
        it.start()
        statuses = [it.status()]
        refused = it.kmemdump(f"mark live {it.places}", status=3)

        # 2. A task comes, and the agent looks again; another one comes.
        newest = int(it.run("sleep 4000 >/dev/null & echo $!").split()[-1])
        it.refresh("HUP" if death is CrashType.SPIN else "USR1")
        statuses.append(it.status())
        said = it.said()
        it.run("sleep 5000 >/dev/null & echo")

        # 3. It dies, and its firmware leaves what is marked.
        crash_guest(it.machine, death)
        it.machine.pause()
        firmware = Firmware(it.machine)
        assert firmware.refused == []
        firmware.leave_folder(folder / "dump")
        firmware.close()
        it.machine.full_dump(full)
    assert main(["collect", str(folder / "dump"), "-o", str(core)]) == 0
    expected = answers(str(full))
    full.unlink()
    return Life(
        death, statuses, refused, said, newest, core, expected, answers(str(core))
    )


@pytest.mark.vm
def test_the_agent_says_what_it_holds_and_costs(life):
    first, second = life.statuses
    assert first["problems"] == []
    assert 100 < first["regions"] <= 199
    assert f"process {first['pid']} already writes to this table" in life.refused
    assert second["cost"]["most_memory"] < 120e6
    assert second["cost"]["share"] < 0.011
    # A look takes seconds in a machine that is emulated; it takes the more of a break.
    look = second["cost"]["each_look"]
    assert second["interval"] == pytest.approx(max(10, 100 * look), abs=0.1)
    assert f"again after {format_duration(second['interval'])}" in life.said


@pytest.mark.vm
def test_answers_are_those_of_the_whole_memory(life):
    # A task that came after the last look is the only one that is not there.
    missing = pids(life.expected["ps"]) - pids(life.found["ps"])
    assert all(pid > life.newest for pid in missing), missing
    assert len(pids(life.found["ps"])) > 200
    for text in QUESTIONS:
        if text not in ("ps", "sys", "bt -a"):
            assert life.found[text] == life.expected[text], text
    # Its task may have come after the last look; its registers are there.
    assert life.culprit in life.found["bt -a"]


@pytest.mark.vm
def test_the_report_names_the_culprit(life, capsys):
    main(["report", str(life.core), "--json"])
    cpus = json.loads(capsys.readouterr().out)["cpus"]
    assert any(life.culprit in str(cpu.get("frames")) for cpu in cpus)
    main(["info", str(life.core)])
    assert re.search(r"^Marked: +.* before", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.vm
def test_memory_of_a_driver_is_there_byte_for_byte(life):
    with read_core(life.core) as image:
        regions = {item.name: item for item in image.manifest.regions}
        state = regions["Ksample_s"]
        written, size, ring = struct.unpack(
            "<3Q", image.memory.read(state.address, state.size)
        )
        assert (written, size) == (len(LAST_WORDS), RING)
    opened = open_target(str(life.core))
    text = attach(opened).prog.read(ring, RING)
    opened.close()
    assert text == LAST_WORDS.encode().ljust(RING, b"\0")


def pids(answer: str) -> set[int]:
    return {int(it) for it in re.findall(r"^>? *(\d+) ", answer, re.MULTILINE)}


@contextmanager
def ram(machine: Machine) -> Iterator[MappedMemory]:
    """The memory of a machine, to be written from outside."""
    target = open_target(f"qmp:{machine.qmp}")
    try:
        with closing(open_writable(target)) as memory:
            yield memory
    finally:
        target.close()


def rows(machine: Machine) -> list[tuple[str, int, int]]:
    """What firmware finds in the table: names, addresses, sizes."""
    where = smem_range(machine.setup.architecture)
    with ram(machine) as memory:
        table = read_table(memory, where, "table")
    assert all(row.is_valid for row in table.regions)
    return [(row.name, row.address, row.size) for row in table.regions]


def smem(machine: Machine) -> bytes:
    where = smem_range(machine.setup.architecture)
    with ram(machine) as memory:
        return memory.read(where.start, where.size)


def checked(device: Device, status: int) -> dict[str, str]:
    """Check the machine in itself; return the state of each point."""
    text = device.kmemdump("check --json", status)
    (target,) = json.loads(text)["targets"]
    assert target["error"] is None
    assert target["core"]["size"] > 1e6
    return {point["name"]: point["state"] for point in target["points"]}


@pytest.mark.vm
@pytest.mark.matrix
def test_check_of_the_machine_itself(device):
    """Without an agent, and with one."""
    it = device(tasks=30)
    found = checked(it, 1)
    assert {name for name, state in found.items() if state != "ok"} == {
        *("agent", "firmware")
    }
    it.start("--interval 86400")
    assert checked(it, 0) == dict.fromkeys(found, "ok")


@pytest.mark.vm
@pytest.mark.matrix
def test_all_its_threads_have_one_capability(device):
    it = device(tasks=30)
    it.start("--interval 86400")
    sets = it.run(f"grep -h ^Cap /proc/{it.status()['pid']}/task/*/status")
    rights = sum(1 << number for number in CAPABILITIES.values())
    for line in sets.splitlines():
        assert int(line.split()[1], 16) in (0, rights), line
    assert it.status()["problems"] == []


@pytest.mark.vm
@pytest.mark.matrix
def test_what_can_go_wrong(device):
    it = device(tasks=30, action="panic=pause,reboot=reset,shutdown=pause")
    machine = it.machine

    # 1. Killed: its marks stay, and the next one takes them over.
    it.start("--interval 86400")
    it.run(f"kill -9 {it.status()['pid']}")
    assert "is gone; what it registered is still there" in it.kmemdump("status", 1)
    left = rows(machine)
    it.run(f"rm /run/kmemdump/{it.table}.json")
    it.start("--interval 86400")
    assert 100 < len(left) <= 201
    assert 100 < len(rows(machine)) <= 201
    assert len({row[0] for row in rows(machine)}) == len(rows(machine))
    assert "199 regions" in it.kmemdump("status")
    where = it.places.partition(" --scratch")[0]
    listed = json.loads(it.kmemdump(f"regions live {where} --json", 1))["regions"]
    assert [row["name"] for row in listed] == [row[0] for row in rows(machine)]

    # 2. Somebody else writes to the table: nothing more is written, and it is told.
    where = smem_range(machine.setup.architecture)
    good = smem(machine)
    count = good.index(b"LBNE") + 12  # region_count, in struct minidump_subsystem
    with ram(machine) as memory:
        memory.write(where.start + count, struct.pack("<I", 150))
    damaged = smem(machine)
    it.run("sleep 4000 & echo")
    it.refresh()
    assert any("somebody else changes" in line for line in it.status()["problems"])
    assert "somebody else changes the minidump table" in it.said()
    assert smem(machine) == damaged
    with ram(machine) as memory:
        memory.write(where.start + count, good[count : count + 4])
    it.refresh()
    assert it.status()["problems"] == []

    # 3. The kernel changes while it is looked at.
    it.run("(i=0; while [ $i -lt 300 ]; do sleep 0.01; i=$((i+1)); done) & echo")
    for _ in range(3):
        it.refresh()
    assert it.status()["failures"] == 0
    assert len(rows(machine)) <= 201

    # 4. A reboot that SMEM survives.
    machine.send("reboot -f")
    machine.wait_ready()
    before = rows(machine)
    assert len(before) > 100
    it.start("--interval 86400")
    assert len(rows(machine)) <= 201
    assert rows(machine) != before

    # 5. An orderly end.
    assert it.stop() == "live: stopped; the regions are taken off"
    assert it.status() is None
    assert rows(machine) == []


@pytest.mark.vm
@pytest.mark.matrix
def test_tables_that_are_full_or_damaged(device):
    it = device(tasks=30)
    machine = it.machine
    where = smem_range(machine.setup.architecture)
    # 1. The table has room for a few only: others have the rest.
    with ram(machine) as memory:
        scratch = Range(where.start + (1 << 20), 64 << 10)  # In SMEM, and not in use.
        backend = MinidumpBackend(memory, where, scratch=scratch)
        for i in range(190):
            backend.register(Region(i + 3, f"other{i}", 0x1000000 + i * 4096, 64))
    foreign = rows(machine)
    it.start("--interval 86400 --leave-registered")
    assert any("is left out: would take" in line for line in it.status()["problems"])
    assert rows(machine)[: len(foreign)] == foreign
    assert len(foreign) < len(rows(machine)) <= 201
    assert it.stop() == "live: stopped; the regions are left"
    assert len(rows(machine)) > len(foreign)

    # 2. A table that is none.
    with ram(machine) as memory:
        memory.write(where.end - 4096, b"what")  # It was $TOC.
    damaged = smem(machine)
    said = it.kmemdump(f"mark live {it.places}", status=1)
    assert said.startswith("kmemdump: error: no usable minidump table: SMEM")
    assert len(said.splitlines()) == 1
    assert smem(machine) == damaged
