# SPDX-License-Identifier: GPL-2.0-or-later
"""Who waits for whom, as the driver of ``tests/buggy`` made its threads wait."""

import json
import re
import time

import pytest

from kmemdump.lab import AARCH64
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
