# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that its user paused stays so, whatever its user does with it meanwhile."""

import time

import pytest

from kmemdump.lab import CrashType
from kmemdump.lab.crashes import trigger_crash
from rigs.watching import PATIENCE, seconds_of

pytestmark = pytest.mark.vm

REBOOTS = "panic=none,reboot=reset,shutdown=poweroff"
MARKED = r"marked .* areas, .* regions"


def test_a_reset(booted, watch):
    machine = booted("6.12", cpus=1, action=REBOOTS)
    watched = watch(machine, arguments=["--then", "reset"], until_dead=False)
    watched.wait_for(MARKED)
    machine.control.execute("stop")
    machine.control.execute("system_reset")
    seconds_of(watched, "reset by the host without a shutdown")
    watched.wait_for("waiting for a kernel")
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        assert machine.control.status() == "prelaunch"
        time.sleep(0.1)
    assert any("reset while it was paused: left so" in it for it in watched.lines)
    lines = len(watched.lines)
    machine.control.execute("cont")
    watched.wait_for(MARKED, after=lines)


@pytest.mark.parametrize(
    ("crash", "said"),
    [
        (CrashType.NULL, "panic, .*; no core image: the process"),
        (CrashType.SPIN, r"frozen: CPU 0 served no interrupt .*\.core"),
    ],
)
def test_a_watch_that_is_killed_when_it_has_paused_a_dead_vm(
    booted, watch, crash, said
):
    """Whether a reset left nothing to see, or only a VM that runs shows its death."""
    machine = booted("6.12", cpus=1, action=REBOOTS)
    machine.run("echo -1 >/proc/sys/kernel/panic")
    arguments = ["--then", "reset", "--hang-after", "3"]
    watched = watch(machine, arguments=arguments, until_dead=False)
    watched.wait_for(MARKED)
    trigger_crash(machine, crash)
    deadline = time.monotonic() + PATIENCE
    while not list(watched.folder.glob(".*.deaths")):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    watched.kill()
    assert machine.control.status() == "paused"
    again = watch(machine, arguments=arguments, until_dead=False)
    again.wait_for(said)
    lines = len(again.lines)
    again.wait_for(MARKED, after=lines)
    assert machine.control.status() == "running"
