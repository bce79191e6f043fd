# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that watch, without a VM: names, isolation, ends."""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kmemdump.cli.watch import _Screen
from kmemdump.errors import UsageError
from kmemdump.marking.selection import select
from kmemdump.watch import Settings, name_vms, watch_vms
from kmemdump.watch.reporter import Reporter
from rigs.fake_qemu import GONE, HANG, FakeQemu

WATCH = [sys.executable, "-m", "kmemdump", "watch"]


def make_selection():
    return select()


def die(number):
    os.kill(os.getpid(), number)


def fail(error):
    raise error


@pytest.fixture
def silent(tmp_path):
    """A socket that takes connections and says nothing."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "silent"))
        server.listen()
        server.settimeout(60)
        yield tmp_path / "silent", server


def watch(tmp_path, selection, **sockets):
    news = []
    outcomes = watch_vms(sockets, selection, Settings(tmp_path), news.append)
    assert all(report.vm in sockets for report in news)
    return outcomes


def test_no_server(tmp_path):
    outcomes = watch(
        tmp_path, make_selection, a=tmp_path / "none", b=Path(__file__).absolute()
    )
    assert "cannot connect: No such file" in outcomes["a"].problem
    assert "cannot connect: Connection refused" in outcomes["b"].problem
    assert not outcomes["a"].watched


@pytest.mark.parametrize(
    ("selection", "problem"),
    [
        (functools.partial(die, signal.SIGSEGV), "its process died (SIGSEGV)"),
        (functools.partial(os._exit, 7), "its process died (exit status 7)"),
        (functools.partial(fail, UsageError("what?")), "what?"),
        (functools.partial(fail, MemoryError()), "MemoryError"),
        (functools.partial(fail, KeyError(1)), "a bug of kmemdump: KeyError: 1"),
    ],
)
def test_death_of_a_process(tmp_path, selection, problem):
    outcome = watch(tmp_path, selection, a=tmp_path / "none")["a"]
    assert outcome.problem.startswith(problem)


def test_command_line_without_a_vm(tmp_path):
    core = tmp_path / "folder" / "cores"
    command = [*WATCH, f"qmp:{tmp_path}/none", "-o", str(core)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    assert done.stdout.count("\n") == 1
    assert "none: not watched:" in done.stdout
    assert list(core.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["x", "qmp:x", "-o", "."], "named twice"),
        (["x", "-o", "/proc/nowhere"], "cannot make /proc/nowhere"),
        (["x", "-o", "/dev/null"], "cannot make /dev/null"),
        (["x", "-o", ".", "--ask", "no-such"], "no crash command"),
        (["x", "-o", ".", "--then", "explode"], "explode"),
    ],
)
def test_wrong_use(arguments, problem):
    done = subprocess.run(
        [*WATCH, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode in (2, 3)
    assert problem in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_orderly_end(tmp_path, silent, number):
    path, server = silent
    process = subprocess.Popen(
        [*WATCH, str(path), "-o", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell ignores SIGINT for what it runs in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    client, _ = server.accept()
    with client:
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output == "kmemdump: stopped; the VMs are not watched any more\n"


def test_children_die_with_the_parent(tmp_path, silent):
    path, server = silent
    process = subprocess.Popen([*WATCH, str(path), "-o", str(tmp_path)])
    client, _ = server.accept()
    with client:
        process.kill()
        process.wait()
        client.settimeout(30)
        begin = time.monotonic()
        assert client.recv(100) == b""  # Before it would have given up.
        assert time.monotonic() - begin < 4


@pytest.mark.parametrize(("as_json", "lines"), [(False, 0), (True, 1)])
def test_signs_of_life_are_for_programs(capsys, as_json, lines):
    messages = []
    Reporter("vm", messages.append, lambda: False).report_samples(5)
    with _Screen(["vm"], verbose=True, as_json=as_json) as screen:
        screen.show(*messages)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines
    for line in printed:
        record = json.loads(line)
        assert record["samples"] == 5
        assert (record["vm"], record["text"]) == ("vm", "5 samples, no alarm")


@pytest.mark.parametrize(
    ("sockets", "names"),
    [
        (["/run/a.sock"], ["a"]),
        (["qmp:/run/a.sock", "b"], ["a", "b"]),
        (["/vm/a/qmp", "/vm/b/qmp"], ["a-qmp", "b-qmp"]),
        (["/vm/a.x", "/vm/a.y"], ["vm-a-1", "vm-a-2"]),
        (["/vm/x y\n/.;$"], ["_$"]),
    ],
)
def test_names(sockets, names):
    found = list(name_vms(sockets))
    if len(found) == 1:
        assert "/" not in found[0]
        assert found[0].isprintable()
        assert " " not in found[0]
    else:
        assert found == names


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (GONE, "the VM went away"),
        (HANG, "no answer from QEMU"),
        ([], "no status in the answer"),
        ({"status": "prelaunch"}, "the VM is not started"),
    ],
)
def test_qemu_that_misbehaves(tmp_path, answer, problem):
    qemu = FakeQemu(tmp_path / "qmp")
    try:
        qemu.ram[4096:8192] = os.urandom(4096)
        qemu.answers["query-status"] = answer
        process = subprocess.Popen(
            [*WATCH, str(qemu.path), "-o", str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("qmp: waiting for a kernel (")
        assert problem in line
    finally:
        qemu.close()
    output, _ = process.communicate(timeout=60)
    assert "QEMU ended before there was a kernel to mark" in output
    assert "Traceback" not in output
    assert process.returncode == 3


def test_memory_without_a_kernel(tmp_path):
    qemu = FakeQemu(tmp_path / "qmp")
    news = []

    def take(report):
        news.append(report.text)
        if "waiting for a kernel (" in report.text:
            qemu.close()

    qemu.ram[4096:] = os.urandom(len(qemu.ram) - 4096)
    outcomes = watch_vms({"a": qemu.path}, make_selection, Settings(tmp_path), take)
    assert any("no VMCOREINFO" in text for text in news)
    assert outcomes["a"].problem == "QEMU ended before there was a kernel to mark"
