# SPDX-License-Identifier: GPL-2.0-or-later
"""Deaths of real VMs, and what a watch makes of them: once, within bounds."""

import signal
import time
from contextlib import ExitStack

import pytest

from kmemdump.coreimage import read_core, verify
from kmemdump.lab import CrashType
from kmemdump.lab.crashes import trigger_crash
from rigs.full_disk import fill, mounted_tmpfs, needs_root
from rigs.watching import PATIENCE, Watch, seconds_of

pytestmark = pytest.mark.vm

MARKED = r"marked .* areas, .* regions"


@needs_root
def test_full_disk_then_reset(booted, tmp_path):
    """The VM waits for its core image, also if its watch is killed meanwhile."""
    machine = booted("6.12")
    with mounted_tmpfs(tmp_path, 40 << 20) as disk, ExitStack() as stack:

        def start():
            arguments = ["--then", "reset", "--min-free", "2M"]
            watched = Watch(disk, machine.qmp, arguments=arguments)
            stack.callback(watched.kill)
            return watched

        watched = start()
        watched.wait_for(MARKED)
        ballast = fill(disk, leave=1 << 20)
        trigger_crash(machine, CrashType.PANIC)
        watched.wait_for("panic; no core image: the file system of .* stays paused")
        assert machine.control.status() == "paused"
        watched.kill()
        again = start()
        again.wait_for("no core image: the file system of .* stays paused")
        assert machine.control.status() == "paused"
        assert again.cores == []
        ballast.unlink()
        again.wait_for(r"panic: .*; \S+\.core, [0-9.]+ MB")
        again.wait_for("reset the VM")
        [path] = again.cores
        with read_core(path) as core:
            assert verify(core) == []
            assert core.manifest.signature == "sysrq"


def test_restart_over_a_dead_vm(booted, watch):
    """A death is dumped once, whoever watches, and wherever the core image is."""
    machine = booted("6.12")
    watched = watch(machine)
    watched.wait_for(MARKED)
    trigger_crash(machine, CrashType.PANIC)
    seconds_of(watched, "panic: ")
    watched.wait_for("left paused")
    watched.kill()
    [path] = watched.cores
    record = watched.folder / ".*.deaths"
    for change in ("nothing", "no record", "no core image"):
        if change == "no record":
            [record] = watched.folder.glob(".*.deaths")
            text = record.read_bytes()
            record.unlink()
        if change == "no core image":
            record.write_bytes(text)
            path.unlink()
        again = watch(machine)
        again.wait_for(f"panic.*; {path.name} is of this very death")
        again.kill()
        assert again.cores == ([] if change == "no core image" else [path])
    assert machine.control.status() != "running"


@pytest.mark.matrix
def test_crash_loop(booted, watch):
    """It dies in each boot: resets come later, and few core images are kept."""
    machine = booted("6.12")
    arguments = ["--then", "reset", "--keep", "3", "--interval", "1"]
    watched = watch(machine, arguments=arguments)
    start = 0
    for number in range(1, 8):
        watched.wait_for(MARKED, after=start)
        start = len(watched.lines)
        trigger_crash(machine, CrashType.NULL if number == 5 else CrashType.PANIC)
        if number == 6:
            watched.wait_for("no core image: it is death 5 of this cause", after=start)
        if number > 3:
            wait = 5 * 2 ** (number - 4)
            watched.wait_for(f"{number} deaths, .*: reset in {wait} s", after=start)
            assert machine.control.status() == "paused"
        watched.wait_for("reset the VM", after=start)
        # Its console has the last panic: `Machine.wait_ready` takes it for a new one.
        while machine.serial_port.read(time.monotonic() + PATIENCE) != "GUEST-READY":
            pass
    watched.process.send_signal(signal.SIGTERM)
    watched.end()
    signatures = []
    for path in watched.cores:
        with read_core(path) as core:
            assert verify(core) == []
            signatures.append(core.manifest.signature)
    assert [text.partition(" in ")[0] for text in signatures] == [
        *("sysrq", "null dereference", "sysrq"),
    ]
