# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that its user paused stays so, whatever its user does with it meanwhile."""

import time

import pytest

from rigs.watching import seconds_of

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
