# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching a VM by its process: no QMP, no registers."""

import os
import signal
import subprocess

import pytest

from kmemdump.coreimage import read_core
from kmemdump.lab import CrashType
from kmemdump.lab.crashes import trigger_crash
from rigs.programs import KMEMDUMP
from rigs.watching import PATIENCE, seconds_of

pytestmark = pytest.mark.vm

MARKED = r"marked .* areas, .* regions"
LONG = 8


def spec(machine) -> str:
    return f"pid:{machine.pid}"


def check_answers(core, *questions: str, expected: str) -> None:
    done = subprocess.run(
        [*KMEMDUMP, "ask", str(core), *questions],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_panic(booted, watch):
    machine = booted("6.12", pvpanic=True, share=False)
    watched = watch(spec(machine), arguments=["--hang-after", "3"])
    watched.wait_for(MARKED)
    watched.wait_without_alarm(LONG)  # An idle kernel's clock may stand still.
    trigger_crash(machine, CrashType.PANIC)
    seconds_of(watched, "panic")
    watched.wait_for("let it go on: its monitor cannot be asked to pause it")
    [core] = watched.cores
    opened = read_core(core)
    assert opened.manifest.cause.startswith("panic")
    opened.close()
    check_answers(core, "ps", "log", expected="sysrq: Trigger a crash")
    os.kill(machine.pid, signal.SIGKILL)
    watched.wait_for("QEMU ended$")  # No second death.
    assert watched.end() == 0
    assert len(watched.cores) == 1


@pytest.mark.matrix
def test_hang_and_end(booted, watch):
    """A hang is known by the kernel's clock; what was copied is left of an end."""
    machine = booted("6.12", pvpanic=True, share=False)
    watched = watch(spec(machine), arguments=["--hang-after", "3", "--interval", "2"])
    watched.wait_for(MARKED)
    watched.wait_without_alarm(LONG)
    trigger_crash(machine, CrashType.SPIN_ALL)
    seconds_of(watched, "frozen: the kernel's clock stands still for")
    os.kill(machine.pid, signal.SIGKILL)
    seconds_of(watched, "QEMU ended unexpectedly")
    watched.end()
    for core in watched.cores:
        check_answers(core, "ps", expected="sleep")
    assert len(watched.cores) == 2


def test_poweroff(booted, watch):
    """The memory is a file, and shows it after the end of the process, too."""
    machine = booted("6.12")
    watched = watch(spec(machine))
    watched.wait_for(MARKED)
    machine.control.execute("set-action", {"shutdown": "poweroff"})
    machine.send("busybox poweroff -f")
    watched.wait_for("ended after an orderly shutdown: no core image")
    assert watched.end() == 0
    assert watched.cores == []
