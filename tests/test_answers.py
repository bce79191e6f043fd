# SPDX-License-Identifier: GPL-2.0-or-later
"""
The main promise: what a VM's whole memory answers at death, the core image answers.

Every question is put to the whole dump that QEMU writes, and to the core image of a
few megabytes, without debug info and with it. Then other people's debuggers open it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from drgn import FaultError
from drgn.helpers.linux.mm import follow_phys

from kmemdump.errors import UnsupportedError
from kmemdump.formats.elf import PT_LOAD, parse_core
from kmemdump.kernel.attach import attach, debug_file_build_id
from kmemdump.lab import (
    AARCH64,
    X86_64,
    Architecture,
    CrashType,
    Machine,
    PackageCache,
    Setup,
)
from kmemdump.lab.built_kernels import BUILT_KERNELS
from kmemdump.opening import open_target
from kmemdump.watch.liveness import Liveness
from rigs.crash_compare import (
    COMMANDS,
    STARTUP,
    compare,
    crash_version,
    diff,
    newer_crash,
    run_crash,
)
from rigs.crash_packages import NEWER_RELEASE, NEWEST_RELEASE, unpacked_crash
from rigs.dead_machine import DeadMachine, without_modules
from rigs.debuginfod import server
from rigs.dumps import answers
from rigs.programs import KMEMDUMP, run, run_kmemdump
from rigs.scenarios import (
    each_kernel_dead,
    each_newer,
    each_newest_crash,
    each_older,
    each_scenario,
    each_series_once,
    each_silent,
    each_with_debug_info,
)
from rigs.snapshots import Snapshots

QUESTIONS = (
    "sys",
    "log",
    "ps",
    "bt -a",
    "bt 1",
    "mod",
    "irq",
    "runq",
    "timer",
    "mount",
    "net",
    "files 1",
    "vm 1",
    "kmem -i",
    "dev",
    "swap",
    "task 1",
    "sig 1",
    "foreach bt",
    "ps -t",
    "ipcs",
    "runq -t",
    "kmem -z",
    "dev -i",
)

STACKS = ("bt -a", "bt 1", "foreach bt")

EMULATED_COMMANDS = ("sys", "log", "ps", "bt -a", "mod", "irq", "mach")


@pytest.fixture(scope="session")
def core(dead: DeadMachine) -> Path:
    """The core image of a dead machine, captured with default options."""
    path = dead.scratch / "core.elf"
    target = f"qmp:{dead.machine.qmp}"
    captured = run_kmemdump("capture", target, "-o", path, *dead.options)
    assert captured.returncode == 0, captured.stderr
    return path


@pytest.fixture(scope="session")
def told(dead: DeadMachine) -> dict[str, str]:
    """What the whole memory answers without debug info."""
    skip_without_names(dead)
    return answers(dead.full_dump, questions(dead))


def questions(dead: DeadMachine) -> tuple[str, ...]:
    """Return the questions that a kernel can answer."""
    if dead.scenario.kernel not in BUILT_KERNELS:
        return QUESTIONS
    # Small kernels do not keep when a task last ran (CONFIG_SCHED_INFO).
    return tuple(text for text in QUESTIONS if text != "runq -t")


@each_scenario
def test_answers_without_debug_info(
    dead: DeadMachine, core: Path, told: dict[str, str], release: None
) -> None:
    assert len(told["ps"].splitlines()) > 200
    assert len(told["foreach bt"].splitlines()) > 1000
    assert answers(core, told) == told


def skip_without_names(dead: DeadMachine) -> None:
    if not dead.scenario.tells:
        pytest.skip("it has neither CONFIG_KALLSYMS_ALL nor types")


@pytest.fixture
def release(dead: DeadMachine, record_property: Callable[[str, object], None]) -> None:
    """Keeps the release for the manual's table."""
    record_property("release", dead.machine.setup.kernel.release)


@pytest.fixture(scope="session")
def told_with_debug_info(dead: DeadMachine) -> dict[str, str]:
    """What the whole memory answers with debug info."""
    return answers(dead.full_dump, questions(dead), dead.vmlinux)


@each_with_debug_info
def test_answers_with_debug_info(
    dead: DeadMachine, core: Path, told_with_debug_info: dict[str, str]
) -> None:
    expected = told_with_debug_info
    assert expected["ps"].count("sleep") >= 200
    assert answers(core, expected, dead.vmlinux) == expected
    if dead.scenario.offline:
        offline = dead.scenario.cpus - 1
        assert f"CPUS: {offline + 1} [OFFLINE: {offline}]" in expected["sys"]
        assert expected["bt -a"].count("psci_0_2_cpu_off") == offline


@each_with_debug_info
def test_debug_info_adds_only_names(
    dead: DeadMachine, told: dict[str, str], told_with_debug_info: dict[str, str]
) -> None:
    """Names of functions that were inlined, and others for the same address."""
    more = told_with_debug_info
    for text in {*told} - {*STACKS}:
        assert without_debug_file(told[text]) == without_debug_file(more[text])
    for text in STACKS:
        ours, theirs = frames(told[text]), frames(more[text])
        scenario = dead.scenario
        if scenario.architecture is AARCH64 or scenario.kernel in BUILT_KERNELS:
            # By frame pointers, stack pointers are not known, and the caller of a
            # function that makes no frame is left out.
            rest = iter(place.split()[-1] for place in theirs)
            assert all(place.split()[-1] in rest for place in ours), text
        else:
            assert ours == theirs, text


HELD = ("log", "ps", "mod", "runq", "timer", "mount", "files 1", "sig 1")
"""Questions that variables which are exported, and per-CPU ones, are enough for."""


def without_debug_file(answer: str) -> str:
    """
    Return an answer without the line of `sys` that names the debug file.

    And without names that drgn does not find with an aarch64 kernel's debug info: there
    special_mapping_name() begins behind the instructions that tracing may patch. And
    with a member of 6.1's xregs_state as 6.12 spells it: for BTF, [0] and [] are one.
    And with plain names, where an ELF file has what clang's LTO adds.
    """
    answer = re.sub(r"\.llvm\.\d+", "", answer)
    answer = answer.replace(" [0]){}", " []){}")
    answer = re.sub(r"(?m) +\[(?:vdso|vvar)\]$", "", answer)
    return re.sub(r"(?m)^ +KERNEL:.*\n", "", re.sub("(?m) +$", "", answer))


def frames(stacks: str) -> list[str]:
    """Return the addresses of a stack's frames; one is shared by what is inlined."""
    found = re.findall(r"^ *#\d+ (?:\[(\w+)\] )?.* at (\w+)", stacks, re.MULTILINE)
    places = [" ".join(place) for place in found]
    return [
        it for it, before in zip(places, ["", *places], strict=False) if it != before
    ]


@each_silent
def test_kernel_without_names(dead: DeadMachine, tmp_path: Path) -> None:
    """One line says what is missing, why, and where it is; most of it is there."""
    path = tmp_path / "core.elf"
    captured = run_kmemdump("capture", f"qmp:{dead.machine.qmp}", "-o", path)
    assert captured.returncode == 1
    problem, held = captured.stderr.splitlines()
    for part in (
        "kallsyms has functions only",
        "CONFIG_KALLSYMS_ALL is not set",
        "--vmlinux",
        f"linux-image-{dead.machine.setup.kernel.release}-dbg",
    ):
        assert part in problem
    complete = held.partition("complete without it: ")[2].split(", ")
    wanted = {"kmsg", "sched", "stacks", "modules", "timers", "mounts"}
    assert wanted <= set(complete)
    expected = answers(dead.full_dump, HELD, dead.vmlinux)
    assert expected["ps"].count("sleep") >= 200
    assert answers(path, HELD) == expected
    stacks = [answers(it, ["bt -a", "bt 1"]) for it in (path, dead.full_dump)]
    assert stacks[0] == stacks[1]
    assert "lab_null" in stacks[0]["bt -a"]
    asked = run_kmemdump("ask", path, "dev")
    assert asked.returncode == 1
    assert "CONFIG_KALLSYMS_ALL is not set" in asked.stderr


@each_silent
def test_watching_a_kernel_without_names(dead: DeadMachine) -> None:
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        with pytest.raises(UnsupportedError, match="cannot find the kernel's panic"):
            Liveness(attach(target))
        Liveness(attach(target, vmlinux=dead.vmlinux))
    finally:
        target.close()


@each_silent
def test_kernel_without_names_but_with_debug_info(
    dead: DeadMachine, core: Path
) -> None:
    """The core image needs no debug info any more: only inline frames are missing."""
    known = run_kmemdump("info", core, "--json")
    assert known.returncode == 0, known.stderr
    expected = answers(dead.full_dump, QUESTIONS, dead.vmlinux)
    found = answers(core, QUESTIONS)
    both = found, expected
    for text in QUESTIONS:
        if text in STACKS:
            # Frame pointers do not lead to the caller of a function that keeps none,
            # and stack pointers are known of fewer frames.
            ours, theirs = ([it.split()[-1] for it in frames(t[text])] for t in both)
            rest = iter(theirs)
            assert all(place in rest for place in ours), text
            assert len(ours) >= 0.9 * len(theirs)
        elif text != "vm 1":  # drgn names the mapping [vdso] only without the vmlinux.
            assert without_debug_file(found[text]) == without_debug_file(expected[text])
    report = run_kmemdump("report", core)
    assert report.returncode == 0, report.stderr


@each_silent
def test_debug_file_is_found(dead: DeadMachine, tmp_path: Path) -> None:
    """By the kernel's build id; which file it is, is said."""
    client = tmp_path / "debuginfod-find"
    client.write_text(f"#!/bin/sh\necho {dead.vmlinux}\n")
    client.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    capture = (*KMEMDUMP, "capture", f"qmp:{dead.machine.qmp}", "-o", tmp_path / "core")
    servers = "http://localhost"
    found = run(*capture, PATH=path, DEBUGINFOD_URLS=servers)
    [line] = found.stderr.splitlines()
    assert (found.returncode, str(dead.vmlinux) in line) == (0, True)
    for options, name in ((["--no-vmlinux"], servers), ([], "")):
        found = run(*capture, *options, PATH=path, DEBUGINFOD_URLS=name)
        assert found.returncode == 1
        assert "CONFIG_KALLSYMS_ALL is not set" in found.stderr


@pytest.mark.matrix  # Loading a debug file takes seconds.
@each_with_debug_info
def test_source_lines_by_debuginfod(
    dead: DeadMachine, core: Path, tmp_path: Path
) -> None:
    """They are those of the same debug file that is given."""
    if not shutil.which("debuginfod-find"):
        pytest.skip("install debuginfod")
    report = (*KMEMDUMP, "report", core, "--json")
    given = run(*report, "--vmlinux", dead.vmlinux)
    with server(dead.vmlinux) as (url, asked):
        found = run(
            *report,
            "--source-lines",
            DEBUGINFOD_URLS=url,
            DEBUGINFOD_CACHE_PATH=str(tmp_path / "cache"),
        )
    # Of modules in which it died, too: the server has the kernel's file only.
    wanted = f"/buildid/{debug_file_build_id(dead.vmlinux)}/debuginfo"
    assert asked.count(wanted) == 1
    [line] = (it for it in found.stderr.splitlines() if "source lines by" in it)
    assert str(tmp_path / "cache") in line
    expected, ours = json.loads(given.stdout), json.loads(found.stdout)
    assert ours["cpus"] == expected["cpus"]
    assert re.search(r'"source": "\S+\.[chS]:\d+"', json.dumps(ours["cpus"]))


@each_scenario
def test_names_of_memory(dead: DeadMachine, core: Path) -> None:
    """
    The virtual addresses in the core image are those of the page table.

    But for the direct map's of the kernel's variables, which arm64 does not map there
    any more in 7.3.
    """
    target = open_target(str(dead.full_dump))
    try:
        prog = attach(target, vmlinux=dead.vmlinux).prog
        with core.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            image = parse_core(
                lambda at, count: os.pread(file.fileno(), count, at), size, str(core)
            )
        kernel = prog["init_mm"].address_of_()
        first, last = (prog.symbol(name).address for name in ("_sdata", "__bss_stop"))
        start = follow_phys(kernel, first).value_()
        variables = range(start, start + last - first)
        loads = [header for header in image.headers if header.type == PT_LOAD]
        for load in loads:
            for offset in range(0, load.filesz, prog["PAGE_SIZE"].value_()):
                place = load.paddr + offset
                try:
                    found = follow_phys(kernel, load.vaddr + offset).value_()
                except FaultError:
                    assert dead.scenario.architecture is AARCH64
                    assert place in variables, hex(load.vaddr + offset)
                else:
                    assert found == place, hex(load.vaddr + offset)
        assert len(loads) > 100
    finally:
        target.close()


@each_scenario
def test_size(
    dead: DeadMachine,
    core: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("core", core.stat().st_size)
    assert core.stat().st_size <= 10e6
    small = tmp_path / "small.elf"
    leave_out = ("--area", "-symbols", "--area", "-crash")
    target = f"qmp:{dead.machine.qmp}"
    given = (*dead.options, *leave_out)
    captured = run_kmemdump("capture", target, "-o", small, *given)
    assert captured.returncode == 0, captured.stderr
    assert small.stat().st_size <= 3.5e6
    # Without symbols and types there is still the log.
    log = run_kmemdump("ask", small, "log")
    assert log.stdout == run_kmemdump("ask", core, "log").stdout != ""


@each_older
def test_unpatched_crash(
    dead: DeadMachine, core: Path, lab_cache: PackageCache
) -> None:
    if dead.scenario.architecture.name == platform.machine():
        # This crash finds but the tasks that a CPU runs; if all are idle, "mount" looks
        # for one without end.
        running = run_kmemdump("ask", core, "bt -a").stdout
        idle = re.search("^PID: +[1-9]", running, re.M) is None
        commands = [name for name in COMMANDS if not (idle and name == "mount")]
        result = compare(dead.vmlinux, dead.full_dump, core, commands)
        assert len(result.identical) >= 17, result.different
        return
    if not dead.scenario.offline:
        # A session of an emulated crash takes a minute. And where it is not CPU 0 that
        # panicked, crash takes a full dump's registers for another CPU's.
        pytest.skip("one scenario of a foreign architecture is enough")
    result = compare(
        dead.vmlinux,
        dead.full_dump,
        core,
        EMULATED_COMMANDS,
        seconds=600,
        crash=unpacked_crash(lab_cache, dead.scenario.architecture),
    )
    assert set(result.identical) == {STARTUP, *EMULATED_COMMANDS}, result.different
    assert "OFFLINE: 7" in result.core["sys"]
    assert "lab_null" in result.core["bt -a"]


@each_newer
def test_unpatched_newer_crash(
    dead: DeadMachine, core: Path, lab_cache: PackageCache
) -> None:
    """
    A crash that knows 6.12, and finds all tasks of 6.1, too.

    It starts with a warning where CPUs are offline, as the others are after a panic:
    kdump's notes, which it looks for then, nobody wrote. And where nobody panicked, it
    takes registers from QEMU's own dumps only, and looks for panic() on all stacks.
    """
    architecture = dead.scenario.architecture
    commands, seconds = COMMANDS, 120
    if architecture.name != platform.machine():
        if not dead.scenario.offline:
            pytest.skip("an emulated session takes a minute: one death is enough")
        commands, seconds = EMULATED_COMMANDS, 600
    result = compare(
        dead.vmlinux,
        dead.full_dump,
        core,
        commands,
        seconds=seconds,
        crash=newer_crash(lab_cache, architecture),
    )
    lost = set()
    if dead.scenario.death is CrashType.SPIN:
        lost = {"bt -a"}
        if re.search(r"^>\s+1\s", result.core["ps"], re.MULTILINE):
            lost.add("bt 1")  # It was running, too.
    assert set(result.different) - {STARTUP} <= lost, result.different
    assert result.core["ps"].count("sleep") >= 200


@each_newest_crash
def test_newest_crash(
    dead: DeadMachine,
    core: Path,
    booted: Callable[..., Machine],
    lab_cache: PackageCache,
    record_property: Callable[[str, object], None],
) -> None:
    """The newest crash that opens the whole dump says the same of the core image."""
    scenario, architecture = dead.scenario, dead.scenario.architecture
    emulated = architecture.name != platform.machine()
    commands = EMULATED_COMMANDS if emulated else COMMANDS
    seconds = 900 if emulated else 240

    def opens(release: str, dump: Path) -> bool:
        argv = newer_crash(lab_cache, architecture, release)
        said = run_crash(dead.vmlinux, dump, ["sys"], seconds=seconds, crash=argv)
        return "RELEASE: " in said.get("sys", "")

    full = dead.full_dump
    releases = [it for it in (NEWEST_RELEASE, NEWER_RELEASE) if opens(it, full)]
    if not releases:
        # 9.0.2 wants num_gpl_syms of struct module, which 7.2 does not have.
        machine = booted(scenario.kernel, architecture=architecture, cpus=scenario.cpus)
        full, core = without_modules(dead, machine)
        releases = [it for it in (NEWEST_RELEASE,) if opens(it, full)]
    if not releases:
        pytest.skip("no crash opens the whole dump of it")
    argv = newer_crash(lab_cache, architecture, releases[0])
    record_property("crash", crash_version(argv))
    found = compare(dead.vmlinux, full, core, commands, seconds=seconds, crash=argv)
    assert set(found.different) <= {STARTUP}, diff(
        found.full, found.core, found.different
    )
    assert len(set(found.full) - {STARTUP}) >= (len(commands) if emulated else 18)


DRGN = Path(sys.executable).with_name("drgn")
SCRIPT = "print(prog['init_uts_ns'].name.release.string_().decode())"


@each_scenario
def test_plain_drgn_with_the_plugin(dead: DeadMachine, core: Path) -> None:
    skip_without_names(dead)
    asked = run(DRGN, "--no-default-symbols", "-q", "-c", core, "-e", SCRIPT)
    assert asked.stdout.strip() == dead.machine.setup.kernel.release, asked.stderr


@each_with_debug_info
def test_plain_drgn_with_debug_info(dead: DeadMachine, core: Path) -> None:
    """Without the plugin."""
    using = ("-s", dead.vmlinux, "-q", "-c", core, "-e", SCRIPT)
    options = ("--no-default-symbols", *using)
    asked = run(DRGN, *options, DRGN_DISABLE_PLUGINS="kmemdump")
    assert asked.stdout.strip() == dead.machine.setup.kernel.release, asked.stderr


@each_kernel_dead
def test_gdb(dead: DeadMachine, core: Path) -> None:
    commands = (
        'printf "%s", linux_banner',
        'printf "%s\\n", init_uts_ns.name.release',
        'printf "%lu\\n", jiffies_64',
        "echo LOG\\n",
        "log",
        "echo TASKS\\n",
        "tasks",
    )
    arguments = [part for text in commands for part in ("-ex", text)]
    options = ("-nx", "-batch", "-iex", "set auto-load off")
    opened = ("open", core, "--with", "gdb", "--vmlinux", dead.vmlinux, "--")
    said = run_kmemdump(*opened, *options, *arguments)
    release = dead.machine.setup.kernel.release
    lines = said.stdout.splitlines()
    assert f"Linux version {release} " in said.stdout, said.stderr
    assert release in lines
    assert any(line.isdigit() and int(line) > 1000 for line in lines), said
    # The commands that we give gdb say what drgn says, without drgn.
    log = run_kmemdump("ask", core, "log", *dead.options).stdout.splitlines()
    assert lines[lines.index("LOG") + 1 : lines.index("TASKS")] == log
    tasks = [line.split() for line in lines[lines.index("TASKS") + 2 :]]
    report = run_kmemdump("report", core, "--json", *dead.options)
    known = {
        (str(task["pid"]), task["state"], str(task["cpu"]))
        for task in json.loads(report.stdout)["tasks"]
    }
    assert known <= {(pid, state, cpu) for pid, state, cpu, *_ in tasks}


@each_series_once
def test_open_starts_crash_and_drgn(dead: DeadMachine, core: Path) -> None:
    opened = ("open", core, "--vmlinux", dead.vmlinux, "--with")
    release = dead.machine.setup.kernel.release
    said = run_kmemdump(
        *opened, "drgn", "--", "-q", "-e", "print(prog['init_uts_ns'].name)"
    )
    assert release in said.stdout, said.stderr
    vmlinux = shlex.quote(str(dead.vmlinux))
    assert f"drgn --no-default-symbols -s {vmlinux} -c {core}" in said.stderr
    if dead.scenario.architecture.name != platform.machine():
        said = run_kmemdump(*opened, "crash")
        assert said.returncode == 3
        assert "it only opens kernels of its own architecture" in said.stderr
        return
    script = dead.scratch / "crash.commands"
    script.write_text("sys\nquit\n")
    said = run_kmemdump(*opened, "crash", "--", "-s", "-i", script)
    assert f"crash --no_crashrc -s -i {script} {vmlinux} {core}" in said.stderr
    # And 8.0.2, which is installed, is too old.
    new = not release.startswith(("5.10.", "6.1."))
    assert ("is too old for this kernel, " in said.stderr) == new
    assert (release in said.stdout) != new, said.stderr


@each_scenario
def test_manifest_says_complete(dead: DeadMachine, core: Path) -> None:
    known = run_kmemdump("info", core, "--json")
    assert known.returncode == 0, known.stderr
    said = json.loads(known.stdout)
    assert said["release"] == dead.machine.setup.kernel.release
    assert [area["name"] for area in said["areas"] if not area["complete"]] == []
    if dead.scenario.tells:
        # Not only as it says: the questions were put.
        assert len(said["tried"]) > 25
        assert [item for item in said["tried"] if not item["answered"]] == []


@pytest.mark.vm
@pytest.mark.parametrize(
    "architecture",
    [X86_64, pytest.param(AARCH64, marks=pytest.mark.matrix)],
    ids=lambda item: item.name,
)
def test_size_does_not_grow_with_memory(
    snapshots: Snapshots,
    make_setup: Callable[..., Setup],
    architecture: Architecture,
    tmp_path: Path,
) -> None:
    sizes = {}
    for memory in (1024, 16384):
        core = tmp_path / f"{memory}.elf"
        setup = make_setup("6.12", architecture=architecture, memory=memory)
        with snapshots.machine(setup) as machine:
            captured = run_kmemdump("capture", f"qmp:{machine.qmp}", "-o", core)
        assert captured.returncode == 0, captured.stderr
        sizes[memory] = core.stat().st_size
    assert max(sizes.values()) <= 1.05 * min(sizes.values()), sizes


@pytest.mark.vm
@pytest.mark.matrix
def test_pages_of_16_kib(booted: Callable[..., Machine], tmp_path: Path) -> None:
    """On a CPU that has addresses of 52 bits, and signs return addresses."""
    core = tmp_path / "core.elf"
    machine = booted("6.12-16k", architecture=AARCH64)
    captured = run_kmemdump("capture", f"qmp:{machine.qmp}", "-o", core, "--pause")
    assert captured.returncode == 0, captured.stderr
    target = open_target(str(core))
    info = target.vmcoreinfo()
    target.close()
    assert (info.page_size, info.number("TCR_EL1_T1SZ")) == (16384, 64 - 52)
