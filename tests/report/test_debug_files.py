# SPDX-License-Identifier: GPL-2.0-or-later
"""Which debug files a report needs, and what is said of those that are missing."""

import io
import json
from dataclasses import replace

import pytest

from kmemdump.cli import main
from kmemdump.diagnosis.records import Cause, CauseKind, Cpu, Frame, Task
from kmemdump.report.debug_files import DebugFiles
from kmemdump.report.records import (
    BlockedTask,
    Findings,
    KernelIdentity,
    Module,
    StackGroup,
    Times,
    TraceEntry,
)
from rigs.built_module import build_module_file, needs_compiler

RELEASE = "6.12.0-of-nobody"
TASK = Task(1, "init", "S")


def frames(*modules):
    return tuple(Frame(1, "f", 2, module) for module in (None, *modules))


def findings(*builds, **fields):
    modules = tuple(Module(name, build_id=build_id) for name, build_id in builds)
    kernel = KernelIdentity(RELEASE, "ab" * 20)
    cause = Cause(CauseKind.PANIC, "It died.")
    return Findings("core", kernel, Times(), cause, modules=modules, **fields)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    return {
        name: build_module_file(folder / f"{name}.ko", i) for i, name in enumerate("ab")
    }


@needs_compiler
def test_modules_of_all_traces_are_looked_for(built, tmp_path):
    builds = [(name, file.build_id) for name, file in built.items()]
    folder = built["a"].path.parent
    for fields in (
        {"cpus": (Cpu(0, True, frames=frames("a")), Cpu(1, True, frames=frames("b")))},
        {"cpus": (Cpu(0, True),), "blocked": (BlockedTask(TASK, frames("a", "b")),)},
        {"cpus": (Cpu(0, True),), "stacks": (StackGroup((TASK,), frames("a", "b")),)},
        {"trace": (TraceEntry("f", 1, 2, "a"), TraceEntry("f", 1, 2, "b"))},
    ):
        report = findings(*builds, ("unused", "cd" * 20), **fields)
        files = DebugFiles(None, [folder], {}, root=tmp_path)
        files.find_modules(report)
        assert files.modules == {name: [file.path] for name, file in built.items()}


@needs_compiler
def test_one_line_for_all_that_are_missing(built, tmp_path):
    """Each file is of another build, or not there, or the module's is not known."""
    cpus = (Cpu(0, True, frames=frames("a", "b", "c", "d", "e", "f")),)
    builds = [(name, "ab" * 20) for name in "bcde"]
    report = findings(("a", built["a"].build_id), *builds, ("f", None), cpus=cpus)
    files = DebugFiles(None, [built["a"].path.parent], {}, root=tmp_path)
    files.find_modules(report)
    lines = Cpu(0, True, frames=(Frame(1, "f", 2, "a", "a.c:1"),))
    (loss,) = files.losses(replace(report, cpus=(lines,)))
    assert loss.what == "the source lines of modules b, c, d, e, f"
    assert loss.why == (
        f"no debug file in the usual places ({built['b'].path}: of another build); no "
        "debug file in the usual places; no build id in memory; name a folder or file "
        "that has it with --modules PATH, or download it: "
        "DEBUGINFOD_URLS=https://debuginfod.elfutils.org/"
    )
    # A file without a line is no better.
    _, useless = files.losses(report)
    assert useless.what == "the source lines of module a"
    assert useless.why == f"none are in {built['a'].path}"


def test_nothing_is_missing_that_nobody_asked_for(tmp_path):
    report = findings(("a", "ab" * 20), cpus=(Cpu(0, True, frames=frames("a")),))
    files = DebugFiles(None, root=tmp_path)
    files.find_modules(report)
    assert files.modules == {}
    assert files.losses(report) == ()


def test_many_modules(tmp_path):
    names = [f"m{i}" for i in range(30)]
    report = findings(cpus=(Cpu(0, True, frames=frames(*names)),))
    files = DebugFiles(None, environ={}, root=tmp_path)
    files.find_modules(report)
    (loss,) = files.losses(report)
    assert loss.what == "the source lines of modules m0, m1, m2, m3, m4 and 25 more"


def log_of(built):
    size = built.printed_size("outer")
    return (
        f"[    0.000000] Linux version {RELEASE} (a@b) #1 SMP\n"
        "[    9.000000] BUG: kernel NULL pointer dereference, address: 0\n"
        f"[    9.000001] RIP: 0010:outer+0x1/{size:#x} [a]\n"
        "[    9.000002] Call Trace:\n"
        "[    9.000003]  seldom+0x18/0x100 [a]\n"
        "[    9.000004]  vfs_write+0x20/0x100\n"
        "[    9.000005] ---[ end trace 0 ]---\n"
    )


@needs_compiler
def test_a_log(built, monkeypatch, capsys):
    """By the command, of standard input, which can be read only once."""
    monkeypatch.delenv("DEBUGINFOD_URLS", raising=False)

    def report_on(*options):
        data = io.BytesIO(log_of(built["a"]).encode())
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(data))
        status = main(["report", "-", "--json", *map(str, options)])
        return status, json.loads(capsys.readouterr().out)

    path = built["a"].path
    status, report = report_on("--modules", path)
    assert status == 0
    # Where it failed is exact; a return address is behind the call.
    expected = built["a"].lines("outer", [1]) + built["a"].lines("seldom", [0x17])
    assert [it["source"].rpartition("/")[2] for it in report["trace"][:2]] == expected
    assert "source" not in report["trace"][2]
    status, other = report_on("--modules", built["b"].path)
    assert status == 1
    (loss,) = other["missing"]
    assert loss["what"] == "the source lines of module a"
    status, other = report_on("--source-lines", "--modules", path)
    assert status == 1
    (loss,) = other["missing"]
    assert loss["what"] == "the source lines"
    assert other["trace"] == report["trace"]


@needs_compiler
@pytest.mark.parametrize("option", [["--source-lines"], ["--modules", "x"]])
def test_not_of_what_is_redacted(built, tmp_path, capsys, option):
    log = tmp_path / "log"
    log.write_text(log_of(built["a"]))
    assert main(["report", str(log), "--redact", *option]) == 2
    assert f"{option[0]} is not allowed with --redact" in capsys.readouterr().err


@needs_compiler
def test_a_path_that_is_not_there(built, tmp_path, capsys):
    log = tmp_path / "log"
    log.write_text(log_of(built["a"]))
    assert main(["report", str(log), "--modules", str(tmp_path / "none")]) == 3
    assert f"{tmp_path}/none: no such file or folder" in capsys.readouterr().err
