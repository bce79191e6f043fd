# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that go on from a snapshot."""

import os
import re
import time
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from kmemdump.errors import TargetError
from kmemdump.lab import CrashType, Machine, crash_guest
from rigs.snapshots import Snapshots, restore, save

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module", params=[True, False], ids=["shared", "private"])
def saved(request, snapshots, make_setup, tmp_path_factory):
    """A setup, the snapshot of a machine that then went on, and its clock then."""
    folder = tmp_path_factory.mktemp("snapshot")
    setup = make_setup("6.12", share=request.param, pvpanic=not request.param)
    with snapshots.machine(setup) as machine:  # Another one is made of it.
        machine.run("echo said before >/dev/kmsg; echo 1 >/run/before")
        save(machine, folder)
        machine.run("echo 1 >/run/after")
        assert machine.run("ls /run").split() == ["after", "before"]
        return setup, folder, uptime(machine)


@pytest.fixture
def going_on(lab_cache, saved):
    @contextmanager
    def restored():
        setup, folder, _ = saved
        with closing(Machine(lab_cache, setup)) as machine:
            restore(machine, folder)
            yield machine

    return restored


def uptime(machine):
    return float(machine.run("cat /proc/uptime").split()[0])


def test_a_guest_goes_on(going_on, saved):
    start = time.monotonic()
    with going_on() as machine:
        assert machine.control.status() == "running"
        assert machine.run("ls /run") == "before"
        assert machine.run("ps").count("sleep 1000000") == 200
        assert machine.console.startswith("[    0.000000] Linux version 6.12.")
        assert machine.console.count("said before") == 1
        machine.run("echo said afterwards >/dev/kmsg")
        assert "said afterwards" in machine.console

        # Its clock goes on from where it was, for every CPU.
        begin, before = time.monotonic(), uptime(machine)
        machine.run("for mask in 1 2; do taskset $mask sleep 0.5; done")
        assert 1 <= uptime(machine) - before < time.monotonic() - begin + 0.5
        *_, then = saved
        assert before < then + time.monotonic() - start + 0.5

        machine.pause()
        machine.resume()
        crash_guest(machine, CrashType.PANIC)
        assert "Kernel panic - not syncing: sysrq" in machine.console


def test_two_of_one_snapshot_are_independent(going_on):
    with going_on() as first, going_on() as second:
        first.run("echo 1 >/run/first; echo said by the first >/dev/kmsg")
        assert second.run("ls /run") == "before"
        assert "said by the first" not in second.console
        crash_guest(first, CrashType.PANIC)
        assert second.run("echo alive") == "alive"
    with going_on() as third:
        assert third.run("ls /run") == "before"


def test_the_snapshot_of_another_machine_is_refused(lab_cache, make_setup, saved):
    setup, folder, _ = saved
    others = [
        make_setup("newest", share=setup.share, pvpanic=setup.pvpanic),
        replace(setup, cpus=1),
        replace(setup, tasks=20),
        replace(setup, arguments=("quiet",)),
    ]
    for other in others:
        with (
            closing(Machine(lab_cache, other)) as machine,
            pytest.raises(TargetError, match="the snapshot is of another machine"),
        ):
            restore(machine, folder)


def test_a_troubled_boot_is_not_kept(lab_cache, saved, tmp_path, monkeypatch):
    setup, folder, _ = saved

    def boot(machine):
        restore(machine, folder)
        machine.run("echo 'rcu: INFO: rcu_sched self-detected stall' >/dev/kmsg")

    monkeypatch.setattr(Machine, "boot", boot)
    snapshots = Snapshots(lab_cache, tmp_path / "snapshots")
    with snapshots.machine(setup) as machine:
        assert machine.run("echo alive") == "alive"
    assert list(snapshots.folder.glob("[!.]*")) == []


def test_one_boot_for_many(lab_cache, saved, tmp_path, monkeypatch):
    """Each setup is booted once, and once more when its snapshot is old."""
    setup, folder, _ = saved
    boots = []
    # On a busy host, the one that was booted may have had some.
    monkeypatch.setattr("rigs.snapshots._TROUBLE", re.compile("(?!)"))

    def boot(machine):
        boots.append(machine.setup)
        restore(machine, folder)

    monkeypatch.setattr(Machine, "boot", boot)
    snapshots = Snapshots(lab_cache, tmp_path / "snapshots")
    for action in ("panic=none", "panic=pause"):  # Of QEMU, not of the machine.
        with snapshots.machine(replace(setup, action=action)) as machine:
            assert machine.run("ls /run") == "before"
            machine.run("echo 1 >/run/after")
    assert len(boots) == 1
    [kept] = snapshots.folder.glob("[!.]*")
    release = re.escape(setup.kernel.release)
    assert re.fullmatch(rf"{release}-[0-9a-f]{{12}}", kept.name)
    week = 7 * 24 * 3600
    os.utime(kept, (time.time() - week - 1,) * 2)
    with snapshots.machine(setup) as machine:
        assert machine.run("ls /run") == "before"
    assert len(boots) == 2
    assert time.time() - kept.stat().st_mtime < week
