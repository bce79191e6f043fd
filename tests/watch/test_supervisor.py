# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that watch, without a VM: names, isolation, ends."""

import contextlib
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from multiprocessing import current_process

import pytest

from kmemdump.bounds import steps
from kmemdump.cli import main
from kmemdump.cli.shared.watch_output import WatchOutput
from kmemdump.errors import BudgetExceededError, KmemdumpError, UsageError
from kmemdump.marking.selection import select
from kmemdump.watch import EventName, Settings, Supervisor
from kmemdump.watch.reporter import Reporter
from kmemdump.watch.sources.sockets import SocketSource
from kmemdump.watch.supervisor import _make_folder
from rigs.fake_qemu import GONE, HANG, FakeQemu

pytestmark = pytest.mark.slow

WATCH = [sys.executable, "-m", "kmemdump", "watch"]


def make_selection():
    return select()


def die(number):
    os.kill(os.getpid(), number)


def die_unless(path):
    if not path.exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return select()


def bomb():
    """Work in C that would never end, and a selection if it is left out."""
    steps._MARGIN = 0
    with contextlib.suppress(BudgetExceededError), steps.step("bomb", 1.0, 10.0):
        sum(range(1 << 60))
    return select()


def never_ends():
    with steps.step("bomb", 600.0, 6000.0):
        sum(range(1 << 60))


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


def watch(folder, selection, *sockets, take=lambda event: None, until_dead=True):
    """Watch until all have ended; return how, by name, and what was reported."""
    events = []

    def report(event):
        events.append(event)
        take(event)

    source = SocketSource([str(path) for path in sockets])
    settings = Settings(folder, until_dead=until_dead)
    outcomes = Supervisor([source], selection, settings, report).run()
    assert {event.vm for event in events} <= {"", *outcomes}
    return outcomes, events


def watch_until_interrupted(folder, qemu, selection, report):
    """Watch until *report* raises KeyboardInterrupt."""
    source = SocketSource([str(qemu.path)])
    try:
        with pytest.raises(KeyboardInterrupt):
            Supervisor([source], selection, Settings(folder), report).run()
    finally:
        qemu.close()


def test_no_server(tmp_path):
    """A path where nothing is, and one of a file that is no socket."""
    file = tmp_path / "file"
    file.touch()
    outcomes, _ = watch(tmp_path / "o", make_selection, tmp_path / "none", file)
    assert "No such file" in outcomes["none"].problem
    assert "is a file, expected a QMP socket" in outcomes["file"].problem
    assert not outcomes["none"].watched


@pytest.mark.parametrize(
    ("selection", "problem"),
    [
        (functools.partial(die, signal.SIGSEGV), "its process died (ended by SIGSEGV)"),
        (functools.partial(os._exit, 7), "its process died (exit status 7)"),
        (functools.partial(fail, UsageError("what?")), "what?"),
        (functools.partial(fail, MemoryError()), "MemoryError"),
        (functools.partial(fail, KeyError(1)), "a bug of kmemdump: KeyError: 1"),
    ],
)
def test_death_of_a_process(tmp_path, selection, problem):
    qemu = FakeQemu(tmp_path / "a")
    try:
        outcomes, _ = watch(tmp_path, selection, qemu.path)
    finally:
        qemu.close()
    assert outcomes["a"].problem.startswith(problem)


def test_a_worker_that_dies_is_started_again(tmp_path):
    """Its death is said at once; the next one works."""
    qemu = FakeQemu(tmp_path / "a")
    killed = tmp_path / "killed"

    def take(event):
        if event.event is EventName.WORKER_DIED:
            killed.touch()
        elif event.event is EventName.WAITING:
            raise KeyboardInterrupt

    selection = functools.partial(die_unless, killed)
    events = []

    def report(event):
        events.append(event.event)
        take(event)

    watch_until_interrupted(tmp_path, qemu, selection, report)
    assert EventName.WORKER_DIED in events


def test_what_ended_a_worker_is_left_out_by_the_next(tmp_path):
    """A hostile guest costs its host the limit of one step, and no more."""
    qemu = FakeQemu(tmp_path / "a")
    texts = []

    def report(event):
        texts.append(event.text)
        if event.event is EventName.WAITING:
            raise KeyboardInterrupt

    watch_until_interrupted(tmp_path, qemu, bomb, report)
    [died] = [text for text in texts if "died" in text]
    # On a busy host, its time is over before its CPU time.
    assert re.match(r"its process died \(ended by SIG(XCPU|ALRM): no healthy ", died)
    assert died.endswith(", in bomb)")


def test_a_worker_in_c_code_ends_at_once(tmp_path):
    """It notices no SIGTERM; it writes no core image, and so it is killed."""
    qemu = FakeQemu(tmp_path / "a")
    started = 0.0

    def tick():
        nonlocal started
        if any(vm.worker and vm.worker.page.step for vm in supervisor._vms.values()):
            started = time.monotonic()
            raise KeyboardInterrupt

    source = SocketSource([str(qemu.path)])
    supervisor = Supervisor(
        [source], never_ends, Settings(tmp_path), lambda event: None, tick
    )
    try:
        with pytest.raises(KeyboardInterrupt):
            supervisor.run()
    finally:
        qemu.close()
    assert time.monotonic() - started < 15  # It had 20 s to end by itself.


def test_command_line_without_a_vm(tmp_path):
    core = tmp_path / "folder" / "cores"
    command = [*WATCH, f"qmp:{tmp_path}/none", "-o", str(core), "--until-dead"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    note, found, problem = done.stdout.splitlines()  # The first one once, for all VMs.
    assert note.startswith("kmemdump: core images are not sealed: ")
    assert done.stderr == ""
    assert found.startswith("none: found: qmp:")
    assert problem.startswith("none: ")
    assert list(core.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(KmemdumpError, match=f"into {tmp_path}: Permission denied"):
        _make_folder(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_behind_a_link_of_another_user(tmp_path):
    """It is refused now, and not when a kernel has died."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / "cores"
    link.symlink_to(tmp_path)
    _make_folder(link)
    os.chown(link, 1000, 1000, follow_symlinks=False)
    with pytest.raises(KmemdumpError, match="is a link of user 1000"):
        _make_folder(link)


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
    *_, last = output.splitlines()
    assert last == "kmemdump: stopped; the VMs are not watched any more"


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
    events = []
    Reporter("vm", events.append, lambda: False).report_samples(5)
    with WatchOutput({}, verbose=True, as_json=as_json) as output:
        output.show(*events)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines
    for line in printed:
        record = json.loads(line)
        assert record["samples"] == 5
        assert (record["vm"], record["text"]) == ("vm", "5 samples, no alarm")
        assert record["event"] == "alive"


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
            [*WATCH, str(qemu.path), "-o", str(tmp_path), "--until-dead"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        assert "core images are not sealed" in process.stdout.readline()
        assert process.stdout.readline().startswith("qmp: found: ")
        line = process.stdout.readline()
        assert line.startswith("qmp: waiting for a kernel (")
        assert problem in line
    finally:
        qemu.close()
    # Not communicate(): it loses what was read ahead.
    output = process.stdout.read()
    process.wait(60)
    process.stdout.close()
    assert "QEMU ended before there was a kernel to mark" in output
    assert "Traceback" not in output
    assert process.returncode == 3


def test_sockets_come_and_go(tmp_path):
    """A folder: found within a second, gone, and again under the same name."""
    folder = tmp_path / "vms"
    folder.mkdir()
    (folder / "no.qmp").touch()
    process = subprocess.Popen(
        [*WATCH, f"{folder}/", "-o", str(tmp_path / "o"), "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )

    def wait_for(event):
        for line in process.stdout:
            record = json.loads(line)
            if record["event"] == event:
                return record
        raise AssertionError(f"no {event}")

    try:
        while (text := wait_for("note")["text"]).startswith("core images"):
            pass
        assert text == "no VM is there yet; those that start are found"
        for _ in range(2):
            qemu = FakeQemu(folder / "web1.qmp")
            try:
                qemu.ram[4096:8192] = os.urandom(4096)
                began = datetime.now(UTC)
                found = wait_for("found")
                assert found["vm"] == "web1"
                # On a busy host it may take longer.
                late = datetime.fromisoformat(found["time"]) - began
                assert late < timedelta(seconds=20)
                wait_for("waiting")
            finally:
                qemu.close()
                qemu.path.unlink()
            assert wait_for("gone")["vm"] == "web1"
    finally:
        process.kill()
        process.communicate()


def test_memory_without_a_kernel(tmp_path):
    qemu = FakeQemu(tmp_path / "a")

    def take(event):
        if event.event is EventName.WAITING:
            qemu.close()

    qemu.ram[4096:] = os.urandom(len(qemu.ram) - 4096)
    outcomes, events = watch(tmp_path, make_selection, qemu.path, take=take)
    assert any("no VMCOREINFO" in event.text for event in events)
    assert outcomes["a"].problem == "QEMU ended before there was a kernel to mark"


_FIRST_PROGRAM = r"""
import sys
import kmemdump.watch.preload
from kmemdump.kernel.program import core_program
from kmemdump.vmcoreinfo import VmcoreInfo

loaded = set(sys.modules)
info = b"OSRELEASE=6\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff82000000\n"
core_program(62, VmcoreInfo.parse(info, "a test"), "a test")
print(sorted(set(sys.modules) - loaded))
"""


def test_a_worker_finds_drgns_plugins_loaded():
    """Each would read the metadata of all packages, and have a copy of what does."""
    argv = [sys.executable, "-c", _FIRST_PROGRAM]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def fail_to_start(error, *_):
    raise error


def hold_and_die(path, name=""):
    """End as in a short pause, once; then go on."""
    if not path.exists() and current_process().name.endswith(name):
        steps.hold(True, "the VM")
        os.kill(os.getpid(), signal.SIGKILL)
    return select()


def test_a_vm_goes_on_if_a_worker_dies_that_had_paused_it(tmp_path):
    qemu = FakeQemu(tmp_path / "a")
    qemu.answers["query-status"] = {"status": "paused", "running": False}
    killed = tmp_path / "killed"

    def report(event):
        if event.event is EventName.WORKER_DIED:
            assert "cont" not in qemu.asked
            killed.touch()
        elif event.event is EventName.WAITING:
            raise KeyboardInterrupt

    selection = functools.partial(hold_and_die, killed)
    watch_until_interrupted(tmp_path, qemu, selection, report)
    assert qemu.asked.count("cont") == 1


def test_a_vm_goes_on_while_another_one_is_watched(tmp_path):
    """Its own watch has ended with the worker that had paused it."""
    one, other = (FakeQemu(tmp_path / name) for name in "ab")
    one.answers["query-status"] = {"status": "paused", "running": False}

    def answer(_):
        deadline = time.monotonic() + 60
        while "cont" not in one.asked and time.monotonic() < deadline:
            time.sleep(0.1)
        return GONE

    other.answers["query-target"] = answer

    def take(event):
        if event.event is EventName.WORKER_DIED:
            (tmp_path / "killed").touch()
        elif event.vm == "b" and event.event is EventName.PROBLEM:
            assert "cont" in one.asked
            one.close()

    selection = functools.partial(hold_and_die, tmp_path / "killed", "a")
    try:
        watch(tmp_path / "o", selection, one.path, other.path, take=take)
    finally:
        other.close()
    assert one.asked.count("cont") == 1


def test_no_process_can_be_started(tmp_path, monkeypatch):
    """The host is short of memory, and what starts processes ended of it."""
    qemu = FakeQemu(tmp_path / "a")
    monkeypatch.setattr(
        "kmemdump.watch.supervisor.Worker", functools.partial(fail_to_start, EOFError())
    )
    try:
        outcomes, _ = watch(tmp_path, make_selection, qemu.path)
    finally:
        qemu.close()
    assert outcomes["a"].problem == "cannot start a process: what starts it ended"


def test_no_vm_until_it_is_dead(tmp_path, capsys):
    """A script with a typing error, or one that starts before QEMU."""
    where = f"{tmp_path}/nosuch/*.qmp"
    assert main(["watch", where, "-o", str(tmp_path / "o"), "--until-dead"]) == 3
    assert f"error: {where}: no VM is there" in capsys.readouterr().err


def test_a_vm_goes_on_if_the_watch_ends_before_its_next_worker(tmp_path):
    qemu = FakeQemu(tmp_path / "a")
    qemu.answers["query-status"] = {"status": "paused", "running": False}

    def report(event):
        if event.event is EventName.WORKER_DIED:
            raise KeyboardInterrupt

    selection = functools.partial(hold_and_die, tmp_path / "never")
    watch_until_interrupted(tmp_path, qemu, selection, report)
    assert qemu.asked.count("cont") == 1
