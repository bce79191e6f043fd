# SPDX-License-Identifier: GPL-2.0-or-later
"""Who waits for whom, and holds what, as the driver of ``tests/buggy`` made threads."""

import json
import re
import time

import pytest

from kmemdump.lab import AARCH64, CrashType
from kmemdump.lab.crashes import crash_guest
from rigs.bugs import build_buggy
from rigs.programs import run_kmemdump

PATIENCE = 240
THREADS = ("buggy_first", "buggy_second", "buggy_third")
_matrix = pytest.mark.matrix


@pytest.mark.vm
@pytest.mark.parametrize(
    ("kernel", "fields"),
    [
        pytest.param("6.12", {}, id="6.12"),
        pytest.param("6.1", {}, id="6.1", marks=_matrix),
        pytest.param("newest", {}, id="newest", marks=_matrix),
        pytest.param("6.12-rt", {}, id="6.12-rt", marks=_matrix),
        pytest.param("6.12", {"architecture": AARCH64}, id="aarch64", marks=_matrix),
    ],
)
def test_chain(booted, make_setup, lab_cache, tmp_path, kernel, fields):
    """The third waits for the second, which waits for the first, which sleeps."""
    buggy = build_buggy(lab_cache, make_setup(kernel, **fields).kernel)
    machine = booted(kernel, files=(buggy,), **fields)
    machine.run("insmod /files/buggy.ko")
    machine.run("echo chain >/sys/module/buggy/parameters/die")
    pids = wait_for(machine, {"buggy_second": "D", "buggy_third": "D"})
    core = tmp_path / "waiting.core"
    done = run_kmemdump("capture", f"qmp:{machine.qmp}", "-o", core)
    assert done.returncode == 0, done.stderr

    answer = run_kmemdump("ask", core, "waits").stdout
    first, second, third = (f"PID {pids[name]} ({name})" for name in THREADS)
    mutex, rw_semaphore = "mutex", "rw-semaphore"
    if kernel.endswith("-rt"):
        mutex = rw_semaphore = "rt-mutex"
    at = r"(?: \w+)? at 0x[0-9a-f]{16}"
    assert re.search(
        rf"^{re.escape(second)} waits for {mutex}{at}, held by {re.escape(first)}$",
        answer,
        re.MULTILINE,
    ), answer
    waits = f"{re.escape(third)} waits for {rw_semaphore}{at}"
    held = "" if kernel.endswith("-rt") else f", held by {re.escape(second)}"
    assert re.search(f"^{waits}{held}", answer, re.MULTILINE), answer
    assert "without CONFIG_LOCKDEP" in run_kmemdump("ask", core, "locks").stdout

    report = json.loads(run_kmemdump("report", core, "--json").stdout)
    chain = [
        (wait["waiter"]["comm"], wait.get("owner", {}).get("comm"))
        for wait in report["waits"]
        if wait["waiter"]["comm"].startswith("buggy_")
    ]
    assert ("buggy_second", "buggy_first") in chain
    if not kernel.endswith("-rt"):
        # A task that another one waits for comes after that.
        assert chain == [("buggy_third", "buggy_second"), chain[-1]]
    # The stack was marked with the question, and so the module's symbols.
    code = run_kmemdump("ask", f"qmp:{machine.qmp}", "dis buggy_wait_for_mutex").stdout
    assert "<buggy_wait_for_mutex>" in code


HELD = re.compile(
    r"^(\d+ locks?) held by (buggy_\w+)/(\d+):\n((?: #\d+: .*\n)+)", re.MULTILINE
)


def held(text):
    """Return the locks of the driver's threads, as lockdep prints them."""
    text = re.sub(r"^\[[^\]]*\] ?", "", text.replace("\r", ""), flags=re.MULTILINE)
    # Of a module's function, the kernel takes the distance to the next one for its size
    # (find_kallsyms_symbol() in kernel/module/kallsyms.c).
    text = re.sub(r"(\+0x[0-9a-f]+)/0x[0-9a-f]+", r"\1", text)
    return {name: (count, pid, locks) for count, name, pid, locks in HELD.findall(text)}


@pytest.mark.vm
@pytest.mark.matrix
def test_locks(booted, make_setup, lab_cache, tmp_path):
    """They are those that the kernel itself lists, before and after it died."""
    buggy = build_buggy(lab_cache, make_setup("lockdep").kernel)
    machine = booted("lockdep", files=(buggy,))
    machine.run("insmod /files/buggy.ko")
    machine.run("echo chain >/sys/module/buggy/parameters/die")
    wait_for(machine, {"buggy_second": "D", "buggy_third": "D"})
    machine.run("dmesg -n 8; echo d >/proc/sysrq-trigger; dmesg -n 1")
    expected = held(machine.run("dmesg"))
    assert {name: count for name, (count, _, _) in expected.items()} == {
        "buggy_first": "1 lock",
        "buggy_second": "2 locks",
        "buggy_third": "1 lock",
    }
    assert "(buggy_mutex){+.+.}-{3:3}, at: buggy_keep_mutex+" in str(expected)

    core = tmp_path / "alive.core"
    done = run_kmemdump("capture", f"qmp:{machine.qmp}", "-o", core)
    assert done.returncode == 0, done.stderr
    for source in (f"qmp:{machine.qmp}", core):
        answer = run_kmemdump("ask", source, "locks").stdout
        assert "lockdep has stopped" not in answer
        assert held(answer.replace(" (waits for it)", "")) == expected
    waiting = re.findall(r"\((\w+)\){.*\(waits for it\)", answer)
    assert waiting == ["buggy_mutex", "buggy_semaphore"]

    crash_guest(machine, CrashType.NULL)
    core = tmp_path / "dead.core"
    done = run_kmemdump("capture", f"qmp:{machine.qmp}", "-o", core)
    assert done.returncode == 0, done.stderr
    answer = run_kmemdump("ask", core, "locks").stdout
    assert answer.startswith("lockdep has stopped")
    assert held(answer.replace(" (waits for it)", "")) == expected
    report = json.loads(run_kmemdump("report", core, "--json").stdout)
    assert report["locks_stopped"]
    locks = [
        (lock["task"]["comm"], lock["lock"], lock["waiting"])
        for lock in report["locks"]
        if lock["task"]["comm"].startswith("buggy_")
    ]
    assert locks == [
        ("buggy_first", "buggy_mutex", False),
        ("buggy_second", "buggy_semaphore", False),
        ("buggy_second", "buggy_mutex", True),
        ("buggy_third", "buggy_semaphore", True),
    ]


def wait_for(machine, states):
    """Wait until tasks are in their states; return the process ids by name."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        stat = machine.run("cat /proc/[0-9]*/stat 2>/dev/null")
        lines = re.findall(r"^(\d+) \((\w+)\) (\w)", stat, re.MULTILINE)
        found = {comm: state for _, comm, state in lines}
        if all(found.get(name) == state for name, state in states.items()):
            return {comm: pid for pid, comm, _ in lines}
        time.sleep(0.2)
    raise AssertionError(f"the tasks did not wait: {stat}")
