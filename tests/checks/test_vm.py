# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of VMs that are well, and of those that are not."""

import json
import os
import shutil
import subprocess
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kmemdump.lab import AARCH64, CrashType, crash_guest
from kmemdump.targets.qmp_client import QmpClient
from rigs.programs import run_kmemdump
from rigs.watching import AREAS, Watch

pytestmark = pytest.mark.vm

FEW = [word for name in AREAS for word in ("--area", name)]
SOME_FREE = 12 << 20
"""Bytes in which there is room for one core image, and not for ten."""


@pytest.fixture(scope="module")
def machine(snapshots, make_setup):
    """A VM that none of the tests kills."""
    with snapshots.machine(make_setup("6.12")) as machine:
        yield machine


def check(*arguments, status=0):
    """Return the records of the targets."""
    done = run_kmemdump("check", "--json", *arguments)
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)["targets"]


def states(target):
    return {point["name"]: point["state"] for point in target["points"]}


def not_well(target):
    return {name: state for name, state in states(target).items() if state != "ok"}


def point(target, name):
    (found,) = [point for point in target["points"] if point["name"] == name]
    return found


def test_a_healthy_vm(machine, tmp_path):
    (target,) = check(f"qmp:{machine.qmp}", "-o", tmp_path)
    # The lab's guests have no such device by default.
    assert not_well(target) == {"pvpanic": "warning"}
    assert target["state"] == "warning"
    assert target["error"] is None
    assert target["release"] == machine.setup.kernel.release
    assert 1e6 < target["core"]["size"] < 20e6
    assert 0 < target["core"]["named"] < target["core"]["finished"]
    assert {"events", "hang", "panic", "questions", "disk"} <= states(target).keys()
    assert list(tmp_path.iterdir()) == []
    assert machine.control.status() == "running"


def test_for_people(machine, tmp_path):
    done = run_kmemdump("check", f"qmp:{machine.qmp}", "-o", tmp_path, *FEW)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert any(line.startswith("ok       memory      1.0 GiB, ") for line in lines)
    at = next(i for i, line in enumerate(lines) if line.startswith("warning  pvpanic"))
    assert lines[at + 1].lstrip().startswith("→ add -device pvpanic-pci")
    assert "a death now would leave what was asked for: " in lines[-1]
    assert "1 warning" in lines[-1]


def test_a_paused_vm(machine):
    machine.pause()
    try:
        (target,) = check(f"qmp:{machine.qmp}", *FEW)
        assert machine.control.status() == "paused"
    finally:
        machine.resume()
    assert not_well(target) == dict.fromkeys(("status", "disk", "pvpanic"), "warning")
    assert "does not run: paused" in point(target, "status")["text"]


def test_a_vm_that_another_client_has(machine):
    with closing(QmpClient(machine.qmp)):
        (target,) = check(f"qmp:{machine.qmp}", *FEW, status=3)
    assert "is another one connected?" in target["error"]
    assert target["points"] == []


def test_a_watched_vm(machine, tmp_path):
    """Its watch answers, and does not count the core image."""
    watch = Watch(tmp_path / "cores", machine.qmp)
    try:
        watch.wait_for("marked ")
        (target,) = check(f"qmp:{machine.qmp}", status=0)
        lines = [line for line in watch.lines if "rehearsed on request" in line]
    finally:
        watch.kill()
    assert not_well(target) == {}
    assert {"watch", "marks", "questions", "disk"} <= states(target).keys()
    assert str(tmp_path / "cores") in point(target, "disk")["text"]
    assert target["release"] == machine.setup.kernel.release
    assert target["core"]["size"] > 1e6
    assert len(lines) == 1
    assert list((tmp_path / "cores").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for one core image."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system: run it as root")
    size = f"size={SOME_FREE}"
    mount = ("mount", "-t", "tmpfs", "-o", size, "kmemdump", str(folder))
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here: run it on a whole machine")
    try:
        yield folder
    finally:
        subprocess.run(("umount", str(folder)), check=True)


def test_a_small_disk_and_a_full_one(machine, small_disk):
    arguments = (f"qmp:{machine.qmp}", "-o", small_disk, *FEW)
    (target,) = check(*arguments, status=1)
    assert "core image" not in not_well(target)
    assert "10 wanted" in point(target, "disk")["text"]
    assert not_well(target)["disk"] == "missing"
    (target,) = check(*arguments, "--deaths", "1")
    assert "disk" not in not_well(target)
    with (small_disk / "full").open("wb") as file:
        file.write(bytes(SOME_FREE - (1 << 20)))
    (target,) = check(*arguments, status=1)
    assert "No space left on device" in point(target, "writing")["text"]
    assert target["core"] is not None  # It was rehearsed elsewhere.
    assert not_well(target)["disk"] == "missing"
    assert [path.name for path in small_disk.iterdir()] == ["full"]


def test_a_dead_vm(booted):
    machine = booted("6.12", pvpanic=True, share=False)
    (target,) = check(f"qmp:{machine.qmp}", *FEW)
    assert not_well(target) == dict.fromkeys(("memory", "disk"), "warning")
    assert "in process" in point(target, "memory")["text"]
    crash_guest(machine, CrashType.PANIC)
    (target,) = check(f"qmp:{machine.qmp}", *FEW, status=1)
    assert not_well(target).keys() >= {"status", "panic"}
    assert "kmemdump capture" in point(target, "status")["advice"]


@contextmanager
def in_firmware(folder: Path):
    """Yield the socket of a VM that has nothing to boot."""
    socket = folder / "firmware.qmp"
    argv = ["qemu-system-x86_64", "-M", "q35", "-m", "256", "-nodefaults"]
    argv += ["-display", "none", "-qmp", f"unix:{socket},server=on,wait=off"]
    if shutil.which(argv[0]) is None:
        pytest.skip("needs QEMU; 'make test' installs it")
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not socket.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield socket
    finally:
        process.kill()
        process.wait()


def test_a_folder(machine, tmp_path):
    """Of a VM that is well, and one that is in its firmware, without any of it."""
    (tmp_path / "a.qmp").symlink_to(machine.qmp)
    (tmp_path / "README").write_text("no socket")
    with in_firmware(tmp_path):
        well, firmware = check(tmp_path, *FEW, status=1)
        table = run_kmemdump("check", tmp_path, *FEW)
    assert well["target"] == f"qmp:{tmp_path}/a.qmp"
    assert well["state"] == "warning"
    found = not_well(firmware)
    assert found["kernel"] == "missing"
    assert {"actions", "memory", "pvpanic", "vmcoreinfo"} <= found.keys()
    assert "no kernel found" in point(firmware, "kernel")["text"]
    assert firmware["core"] is None
    assert table.returncode == 1
    assert machine.setup.kernel.release in table.stdout
    assert "missing  kernel" in table.stdout
    assert table.stderr == ""


@pytest.mark.matrix
def test_a_kernel_that_lacks_symbols(booted, vmlinux, tmp_path):
    """Debian's 6.1 for aarch64 has no data symbols in kallsyms."""
    machine = booted("6.1", architecture=AARCH64)
    (target,) = check(f"qmp:{machine.qmp}", "-o", tmp_path, status=1)
    assert not_well(target)["symbols"] == "missing"
    assert "--vmlinux" in point(target, "symbols")["advice"]
    options = ("--vmlinux", vmlinux("6.1", AARCH64))
    (target,) = check(f"qmp:{machine.qmp}", "-o", tmp_path, *options)
    assert not_well(target) == {"pvpanic": "warning"}
