# SPDX-License-Identifier: GPL-2.0-or-later
"""What a watch finds when it comes: a kernel of before, a dead one, a boot loop."""

import re
import shutil
import time
from contextlib import closing

import pytest

from kmemdump.coreimage import read_core
from kmemdump.lab import AARCH64, X86_64, CrashType, Machine, crash_guest
from kmemdump.lab.crashes import die_by_module, trigger_crash
from rigs.watching import seconds_of

pytestmark = pytest.mark.vm

MARKED = r"marked .* areas, .* regions"
each_architecture = pytest.mark.parametrize(
    "architecture",
    [X86_64, pytest.param(AARCH64, marks=pytest.mark.matrix)],
    ids=lambda item: item.name,
)


class SecondLife(Machine):
    """A machine whose RAM is the file that an earlier one left behind."""

    def __init__(self, cache, setup, ram):
        super().__init__(cache, setup)
        self._left = ram

    def _prepare(self):
        shutil.copyfile(self._left, self.folder / "ram")


@pytest.mark.matrix
@each_architecture
def test_kernel_of_an_earlier_life(
    booted, lab_cache, make_setup, watch, architecture, tmp_path
):
    """It panicked; the VM boots again, and nothing happens to it."""
    first = booted("6.12", architecture=architecture)
    crash_guest(first, CrashType.PANIC)
    shutil.copyfile(first.ram, tmp_path / "ram")
    first.close()
    setup = make_setup("6.12", architecture=architecture)
    with SecondLife(lab_cache, setup, tmp_path / "ram") as machine:
        watched = watch(machine, arguments=["--then", "reset"])
        watched.wait_for(MARKED)
        assert watched.cores == []


@each_architecture
def test_watched_from_the_first_instruction(
    booted, lab_cache, make_setup, watch, architecture, tmp_path
):
    """The same; all that there is for a while is the dead kernel."""
    first = booted("6.12", architecture=architecture)
    crash_guest(first, CrashType.PANIC)
    shutil.copyfile(first.ram, tmp_path / "ram")
    first.close()
    machine = SecondLife(
        lab_cache, make_setup("6.12", architecture=architecture), tmp_path / "ram"
    )
    with closing(machine):
        machine.start()
        machine.pause()
        watched = watch(machine, arguments=["--then", "reset"])
        watched.wait_for("waiting for a kernel")
        machine.resume()
        machine.wait_ready()
        watched.wait_for(MARKED)
        assert watched.cores == []
        trigger_crash(machine, CrashType.PANIC)
        seconds_of(watched, "panic: ")
        watched.wait_for("reset the VM")


@pytest.mark.matrix
@pytest.mark.parametrize("architecture", [X86_64, AARCH64], ids=lambda item: item.name)
def test_dead_before(booted, watch, architecture):
    """It is dumped, and nothing acts on it."""
    machine = booted("6.12", architecture=architecture)
    crash_guest(machine, CrashType.PANIC)
    watched = watch(machine, arguments=["--then", "quit"], until_dead=False)
    seconds_of(watched, "dead before the watch began: panic: .*sysrq")
    watched.wait_for("left as it is")
    assert machine.control.status() == "running"
    [path] = watched.cores
    with closing(read_core(path)) as core:
        assert core.manifest.death == "panic"
    # Its next boot is watched.
    lines = len(watched.lines)
    machine.control.execute("set-action", {"reboot": "reset"})
    machine.control.execute("system_reset")
    watched.wait_for(MARKED, after=lines)


def test_restored_dead(booted, lab_cache, make_setup, watch, tmp_path):
    """Its user saved a dead VM: it is not ended although its start was watched."""
    first = booted("6.12")
    crash_guest(first, CrashType.PANIC)
    shared = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
    first.control.execute("migrate-set-capabilities", shared)
    first.control.execute("migrate", {"uri": f"exec:cat >{tmp_path}/stream"})
    while first.control.execute("query-migrate")["status"] != "completed":
        time.sleep(0.1)
    (tmp_path / "files").mkdir()
    shutil.copyfile(first.ram, tmp_path / "files/ram")
    with closing(Machine(lab_cache, make_setup("6.12"))) as machine:
        machine.start(tmp_path / "files")
        watched = watch(machine, arguments=["--then", "quit"], until_dead=False)
        watched.wait_for("the VM is not started")
        machine.control.execute("migrate-set-capabilities", shared)
        uri = {"uri": f"exec:cat {tmp_path}/stream"}
        machine.control.execute("migrate-incoming", uri)
        seconds_of(watched, "dead before the watch began: panic: .*sysrq")
        watched.wait_for("left as it is")
        assert machine.control.status() == "running"


@pytest.mark.matrix
def test_hung_before(booted, watch):
    machine = booted("6.12")
    die_by_module(machine, "spinall")
    watched = watch(machine, arguments=["--then", "quit", "--hang-after", "3"])
    seconds_of(watched, "dead before the watch began: frozen: CPUs 0, 1 served no")
    watched.wait_for("left as it is")
    assert machine.control.status() == "running"


@pytest.mark.parametrize(
    ("architecture", "kaslr"),
    [
        pytest.param(X86_64, "nokaslr", marks=pytest.mark.matrix),
        pytest.param(X86_64, "", marks=pytest.mark.matrix),
        pytest.param(AARCH64, "", marks=pytest.mark.matrix),
        pytest.param(AARCH64, "nokaslr", marks=pytest.mark.matrix),
    ],
)
def test_boot_loop(lab_cache, make_setup, watch, architecture, kaslr):
    """Each life ends before its kernel is marked; each leaves a core image."""
    arguments = ("rdinit=/bin/false", kaslr)
    setup = make_setup("6.12", architecture=architecture, arguments=arguments)
    with closing(Machine(lab_cache, setup)) as machine:
        machine.start()
        machine.pause()
        watched = watch(machine, arguments=["--then", "reset"])
        watched.wait_for("waiting for a kernel")
        machine.resume()
        for lives in (1, 2):
            watched.wait_for("reset the VM", after=_after(watched, lives - 1))
            assert len(watched.cores) >= lives
        assert all("root file system" in line for line in deaths(watched))


def deaths(watched):
    """Return what was said of each death."""
    found = [line for line in watched.lines if ".core, " in line]
    assert found
    return found


def _after(watched, count):
    """Return the number of lines up to the reset of that number."""
    resets = [
        i for i, line in enumerate(watched.lines, 1) if re.search("reset the VM", line)
    ]
    return resets[count - 1] if count else 0


def test_overwritten_name(booted, watch):
    """The kernel runs on, and so does the watch."""
    machine = booted("6.12", cpus=1)
    watched = watch(machine, arguments=["--interval", "60"])
    watched.wait_for(MARKED)
    overwrite_name(machine)
    watched.wait_for("its name and version in memory are overwritten")
    trigger_crash(machine, CrashType.PANIC)
    seconds_of(watched, "panic: ")
    assert len(watched.cores) == 1


def overwrite_name(machine):
    """Overwrite init_uts_ns from outside; its place is as in QEMU's view."""
    arch = machine.setup.architecture
    said = machine.run("busybox grep ' init_uts_ns$' /proc/kallsyms").split()
    answer = machine.control.command_line(f"gva2gpa 0x{said[0]}")
    place = int(re.search("gpa: (0x[0-9a-f]+)", answer)[1], 16)
    with machine.ram.open("r+b") as ram:
        ram.seek(place - arch.ram)
        ram.write(b"\xff" * 400)
