# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb ``report``: without a machine, and on each of the deaths."""

import html
import json
import random
import re
import shutil
import time
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from types import SimpleNamespace

import pytest
from hypothesis import settings

from kmemdump.cli import main
from kmemdump.diagnosis.records import Cause, CauseKind
from kmemdump.kernel.attach import attach
from kmemdump.lab import CrashType, crash_guest
from kmemdump.lab.built_kernels import BUILT_KERNELS
from kmemdump.opening import open_target
from kmemdump.report.gather import gather
from kmemdump.report.records import UNDAMAGED, KernelIdentity, Loss, Times
from kmemdump.report.report import Report
from rigs.built_module import BuiltModule
from rigs.debuginfod import server
from rigs.scenarios import each_death, each_death_in_module
from rigs.schema import check_schema

REPORT = Report(
    "a.core",
    KernelIdentity("6.1.0"),
    Times(),
    Cause(CauseKind.PANIC, "Somebody made the kernel crash on purpose."),
)


@pytest.fixture
def gathered(monkeypatch):
    """What is gathered, whatever the target is."""

    @contextmanager
    def opened_target(*args):
        yield SimpleNamespace(name="a.core", memory=SimpleNamespace(ranges=()))

    shown = SimpleNamespace(report=REPORT)
    monkeypatch.setattr("kmemdump.cli.report.opened_target", opened_target)
    monkeypatch.setattr("kmemdump.core.Core.report", lambda core, **_: shown.report)
    return shown


def test_text(gathered, capsys):
    assert main(["report", "a.core"]) == 0
    assert "Somebody made the kernel crash" in capsys.readouterr().out


def test_json(gathered, capsys):
    assert main(["report", "a.core", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cause"]["kind"] == "panic"


def test_output(gathered, capsys, tmp_path):
    out = tmp_path / "report.txt"
    assert main(["report", "a.core", "-o", str(out)]) == 0
    assert out.read_text().startswith("Cause of death\n")
    assert capsys.readouterr().out == ""
    assert main(["report", "a.core", "--json", "-o", str(out)]) == 0
    assert json.loads(out.read_text())["version"] == 1
    assert main(["report", "a.core", "-o", str(tmp_path / "no/where")]) == 3


def test_page(gathered, capsys, tmp_path):
    page = tmp_path / "report.html"
    assert main(["report", "a.core", "--html", str(page)]) == 0
    assert REPORT.cause.sentence in page.read_text()
    assert capsys.readouterr().out == f"{page}: {REPORT.cause.sentence}\n"
    assert main(["report", "a.core", "--html", str(page), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 1
    assert main(["report", "a.core", "--html", str(tmp_path / "no/where")]) == 3


def test_missing_parts(gathered, capsys):
    gathered.report = replace(REPORT, missing=(Loss("the tasks", "they are gone"),))
    assert main(["report", "a.core"]) == 1
    out, err = capsys.readouterr()
    assert "- the tasks: they are gone" in out
    assert err == "kmemdump: a.core: the report lacks the tasks\n"
    damage = Loss(UNDAMAGED, "region a has checksum 1, expected 2")
    gathered.report = replace(REPORT, missing=(damage,))
    assert main(["report", "a.core"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "kmemdump: a.core: is damaged: region a has checksum 1, expected 2",
        "kmemdump: a.core: the report lacks undamaged memory",
    ]


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"random\0" * 999])
def test_other_files(capsys, tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert main(["report", str(path)]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"kmemdump: error: {path}")
    assert "Traceback" not in err


def report_on(path, *arguments):
    """Return exit status and JSON of a report on a core image."""
    out = path.with_suffix(".json")
    status = main(["report", str(path), "--json", "-o", str(out), *arguments])
    return status, json.loads(out.read_text())


SENTENCES = {
    CrashType.PANIC: r"Task \S+ \(pid \d+\) made the kernel crash on purpose, through "
    r"sysrq, on CPU \d+\.",
    CrashType.NULL: r"The kernel dereferenced a NULL pointer in lab_null\+0x\w+/0x\w+ "
    r"\[kmemdump_lab\] \(write at address 0x0\) in task sh \(pid \d+\) on CPU \d+\. "
    r"The kernel panicked because panic_on_oops is set \(oops=panic\)\.",
    CrashType.NMI: r"CPU 0 got a non-maskable interrupt \(NMI\) without a known "
    r"reason\. .* The kernel panicked because unknown_nmi_panic is set .*",
    CrashType.SPIN: r"CPU \d+ hangs in lab_spin\+0x\w+ \[kmemdump_lab\], "
    r"called by task sh \(pid \d+\): .*",
}
KINDS = {
    CrashType.PANIC: "panic",
    CrashType.NULL: "null dereference",
    CrashType.NMI: "nmi",
    CrashType.SPIN: "hang",
}


@each_death
def test_deaths(dead, tmp_path, capsys):
    scenario, machine = dead.scenario, dead.machine
    core = tmp_path / "core"
    capture = ["capture", f"qmp:{machine.qmp}", "-o", str(core)]
    assert main([*capture, *dead.options]) == 0
    status, report = report_on(core, *dead.options)
    assert status == 0
    assert report["missing"] == []
    check_schema(report)
    cause = report["cause"]
    if scenario.death is CrashType.SPIN:
        # It was paused so soon that nobody could tell whether that would last.
        told = [cause["sentence"], *cause["evidence"]]
        if sum("interrupts off" in text for text in told) >= 3:
            # A busy host stops more CPUs at such a moment than a cause names.
            told += [str(cpu["frames"][:1]) for cpu in report["cpus"]]
        assert any(dead.spinning in text for text in told), told
    elif scenario.kernel in BUILT_KERNELS:
        # Without CONFIG_DEBUG_BUGVERBOSE, a panic does not log the task and its stack.
        assert "made the kernel crash on purpose, through sysrq" in cause["sentence"]
        assert cause["kind"] == KINDS[scenario.death]
    else:
        assert re.fullmatch(SENTENCES[scenario.death], cause["sentence"])
        assert cause["kind"] == KINDS[scenario.death]
        assert report["cpus"][0]["number"] == cause["cpu"]
    if "frame" in cause:
        marked = report["cpus"][0]["frames"][cause["frame"]]["symbol"]
        asked = scenario.death is CrashType.PANIC and marked == "sysrq_handle_crash"
        assert asked or f" in {marked}+" in cause["sentence"]
    elif "cpu" in cause:
        # Nothing of the kernel's: the NMI came while a program ran.
        assert scenario.death is CrashType.NMI
        below = report["cpus"][0]["frames"][1:]
        assert not any(it.get("interrupted") for it in below)
    if scenario.death is CrashType.NULL:
        assert {"letter": "D", "words": "the kernel had an oops or a bug"} in (
            report["taints"]
        )
    assert len(report["cpus"]) == scenario.cpus
    assert all(cpu["frames"] for cpu in report["cpus"])
    symbols = [frame.get("symbol") for cpu in report["cpus"] for frame in cpu["frames"]]
    expected = {
        CrashType.PANIC: "sysrq_handle_crash",
        CrashType.NULL: "lab_null",
        CrashType.NMI: "exc_nmi",
        CrashType.SPIN: dead.spinning,
    }
    assert expected[scenario.death] in symbols
    names = {module["name"] for module in report["modules"]}
    assert set(machine.setup.modules) <= names
    assert sum(task["comm"] == "sleep" for task in report["tasks"]) == 200
    assert len(report["memory_map"]["ram"]) in (1, 2, 3)
    page = tmp_path / "page.html"
    assert main(["report", str(core), "--html", str(page), *dead.options]) == 0
    assert page.stat().st_size < 3_000_000
    assert cause["sentence"] in html.unescape(page.read_text())
    # The same from the machine's memory; it is only the name that differs.
    capsys.readouterr()
    assert main(["report", f"qmp:{machine.qmp}", "--json", *dead.options]) == 0
    whole = json.loads(capsys.readouterr().out)
    for key in ("kernel", "cpus", "tasks", "modules", "taints", "interrupts", "log"):
        assert report[key] == whole[key], key


@pytest.mark.vm
@pytest.mark.matrix
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_hang_noticed_while_others_block(booted, series, tmp_path, capsys):
    machine = booted(series)
    # Whoever is to go on must not wait for the CPU that spins.
    machine.run("taskset -p 1 $$")
    parameter = "/sys/module/kmemdump_lab/parameters/die"
    machine.send(f"taskset 2 sh -c 'echo spin >{parameter}' &")
    time.sleep(1)
    # This waits until each CPU has been through the scheduler: for ever.
    machine.send("busybox rmmod dummy &")
    time.sleep(5)
    machine.pause()
    core = tmp_path / "core"
    assert main(["capture", f"qmp:{machine.qmp}", "-o", str(core)]) == 0
    status, report = report_on(core)
    assert status == 0
    assert report["cause"]["kind"] == "hang"
    assert re.fullmatch(SENTENCES[CrashType.SPIN], report["cause"]["sentence"])
    assert report["cause"]["cpu"] == report["cpus"][0]["number"] == 1
    assert report["cpus"][0]["timer_overdue"] > 3
    blocked = {item["task"]["comm"]: item for item in report["blocked"]}
    frames = blocked["busybox"]["frames"]
    assert any("rcu" in frame["symbol"] for frame in frames)
    main(["report", str(core)])
    assert "Blocked tasks" in capsys.readouterr().out


@pytest.mark.vm
def test_healthy_memory(booted, tmp_path, capsys):
    machine = booted("6.12")
    live = tmp_path / "live"
    capture = ["capture", f"qmp:{machine.qmp}", "-o", str(live)]
    assert main([*capture, "--pause", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["size"] == live.stat().st_size
    assert all(area["complete"] for area in said["areas"])
    assert machine.control.status() == "running"
    status, report = report_on(live)
    assert (status, report["cause"]["kind"]) == (0, "alive")


@each_death_in_module
def test_source_lines_of_modules(dead, core_image, tmp_path, monkeypatch, capsys):
    """They are addr2line's, for the core image and for what was on its console."""
    path = dead.machine.setup.module
    if path is None or not shutil.which("debuginfod-find"):
        pytest.skip("there is no module of this kernel, or debuginfod is missing")
    module = BuiltModule(path, dead.scenario.architecture.compiler)
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "cache"))
    plain = report_on(core_image, *dead.options)[1]
    with server(path) as (url, asked):
        monkeypatch.setenv("DEBUGINFOD_URLS", url)
        status, report = report_on(core_image, "--source-lines", *dead.options)
    assert f"/buildid/{module.build_id}/debuginfo" in asked
    # Of a vmlinux, which is not here, the server has another build.
    lost = {loss["what"] for loss in report["missing"]}
    assert (status, lost) == ((0, set()) if dead.options else (1, {"the source lines"}))
    frames = frames_of(report)
    assert without_sources(frames) == without_sources(frames_of(plain))
    found = [
        it for it in frames if it.get("module") == "kmemdump_lab" and "offset" in it
    ]
    assert found
    for frame, before in zip(frames, [{}, *frames], strict=False):
        if frame in found:
            exact = frame.get("interrupted") or not before
            [line] = module.lines(frame["symbol"], [frame["offset"] - (not exact)])
            assert frame["source"].endswith(f"/{line}"), frame
    if dead.scenario.death is not CrashType.NULL:
        return  # A hang logs nothing.
    text = (files("kmemdump.lab") / "guest/kmemdump_lab.c").read_text().splitlines()
    [number] = [i for i, line in enumerate(text, 1) if "lab_nowhere = 1;" in line]
    expected = f"/kmemdump_lab.c:{number}"
    assert any(it["source"].endswith(expected) for it in found)
    log = tmp_path / "console"
    log.write_text(dead.machine.console)
    _, report = report_on(log, "--modules", str(path.parent))
    trace = [it for it in report["trace"] if it.get("module") == "kmemdump_lab"]
    assert trace[0]["source"].endswith(expected)
    sources = {it["symbol"]: it["source"] for it in found}
    assert all(
        it["source"] == sources[it["function"]] for it in trace if it["reliable"]
    )


def frames_of(report):
    return [frame for cpu in report["cpus"] for frame in cpu["frames"]]


def without_sources(frames):
    return [{**it, "source": None} for it in frames if not it.get("inline")]


@pytest.mark.vm
@pytest.mark.matrix
def test_source_lines_and_damaged_memory(booted, tmp_path, capsys, vmlinux):
    machine = booted("6.12")
    crash_guest(machine, CrashType.NULL)
    machine.pause()
    core = tmp_path / "core"
    assert main(["capture", f"qmp:{machine.qmp}", "-o", str(core)]) == 0
    status, report = report_on(core, "--vmlinux", str(vmlinux("6.12")))
    assert status == 0
    assert any("source" in frame for frame in report["cpus"][0]["frames"])
    # Whatever is damaged: a report, or an error of ours, in a bounded time.
    whole = core.read_bytes()
    damaged = tmp_path / "damaged"
    chance = random.Random(1)
    for _ in range(settings.default.max_examples // 8):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 20, 400))):
            at = chance.randrange(len(data) // 2, len(data) - 64)
            data[at : at + 64] = chance.randbytes(64)
        damaged.write_bytes(data)
        target = open_target(str(damaged))
        try:
            found = gather(attach(target), "damaged")
        finally:
            target.close()
        assert found.cause.sentence
