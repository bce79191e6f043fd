# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of VMs that are well, and of those that are not."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kmemdump.lab import AARCH64, CrashType, crash_guest
from kmemdump.targets.qmp_client import QmpClient
from rigs.keys import age_key
from rigs.programs import KMEMDUMP, run, run_kmemdump
from rigs.watching import AREAS, Watch

pytestmark = pytest.mark.vm

FEW = [word for name in AREAS for word in ("--area", name)]
SOME_FREE = 12 << 20
"""Bytes in which there is room for core images, but not for ten."""


@pytest.fixture(scope="module")
def machine(snapshots, make_setup):
    """A VM that none of the tests kills."""
    with snapshots.machine(make_setup("6.12")) as machine:
        yield machine


LEAST = (
    ("setpriv", "--no-new-privs", "--bounding-set", "-all,+sys_ptrace,+dac_override")
    if os.geteuid() == 0
    else ()
)
"""Starts a program with the rights of kmemdump-watch.service."""


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
    """Which would be sealed, as the service's configuration says."""
    config, cores = tmp_path / "kmemdump.toml", tmp_path / "cores"
    key = age_key(tmp_path)
    config.write_text(f'[watch]\noutput = "{cores}"\nseal = ["{key.public}"]\n')
    cores.mkdir()
    (target,) = check(f"qmp:{machine.qmp}", "--config", config)
    # The lab's guests have no such device by default.
    assert not_well(target) == {"pvpanic": "warning"}
    assert target["state"] == "warning"
    assert target["error"] is None
    assert target["release"] == machine.setup.kernel.release
    assert 1e6 < target["core"]["size"] < 20e6
    assert 0 < target["core"]["named"] < target["core"]["finished"]
    assert {"events", "hang", "panic", "questions", "disk"} <= states(target).keys()
    assert "(sealed)" in point(target, "core image")["text"]
    assert str(cores) in point(target, "disk")["text"]
    assert list(cores.iterdir()) == []
    assert machine.control.status() == "running"


def test_a_paused_vm(machine):
    machine.pause()
    try:
        (target,) = check(f"qmp:{machine.qmp}", *FEW)
        assert machine.control.status() == "paused"
    finally:
        machine.resume()
    assert not_well(target) == dict.fromkeys(("status", "disk", "pvpanic"), "warning")
    assert "does not run: paused" in point(target, "status")["text"]


def test_a_vm_that_does_not_answer_in_time(machine):
    os.kill(machine.pid, signal.SIGSTOP)
    try:
        (target,) = check(f"qmp:{machine.qmp}", *FEW, "--max-time", "1", status=3)
    finally:
        os.kill(machine.pid, signal.SIGCONT)
    assert target["error"] == "not checked in 1 s"


def test_a_vm_that_another_client_has(machine):
    with closing(QmpClient(machine.qmp)):
        (target,) = check(f"qmp:{machine.qmp}", *FEW, status=3)
    assert "is another one connected?" in target["error"]
    assert target["points"] == []


def test_a_watched_vm(machine, tmp_path):
    """Its watch answers, and does not count the core image."""
    key = age_key(tmp_path)
    watch = Watch(tmp_path / "cores", machine.qmp, arguments=["--seal", key.public])
    try:
        watch.wait_for(r"marked \d")
        (target,) = check(f"qmp:{machine.qmp}", status=0)
        watch.wait_for("rehearsed on request")  # It answers before it says so.
        lines = [line for line in watch.lines if "rehearsed on request" in line]
    finally:
        watch.kill()
    assert not_well(target) == {}
    assert {"watch", "marks", "questions", "disk"} <= states(target).keys()
    assert str(tmp_path / "cores") in point(target, "disk")["text"]
    assert target["release"] == machine.setup.kernel.release
    assert target["core"]["size"] > 1e6
    assert "(sealed)" in point(target, "core image")["text"]
    assert len(lines) == 1
    # The folder's lock, and its key, which is no key to what is sealed.
    left = {it.name for it in (tmp_path / "cores").iterdir()}
    assert left == {".kmemdump.lock", ".kmemdump.key"}


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


def test_a_full_disk(machine, small_disk):
    with (small_disk / "full").open("wb") as file:
        file.write(bytes(SOME_FREE - (1 << 20)))
    (target,) = check(f"qmp:{machine.qmp}", "-o", small_disk, *FEW, status=1)
    assert "No space left on device" in point(target, "writing")["text"]
    assert target["core"] is not None  # It was rehearsed elsewhere.
    assert "10 wanted" in point(target, "disk")["text"]
    assert not_well(target)["disk"] == "missing"
    assert [path.name for path in small_disk.iterdir()] == ["full"]


def test_a_dead_vm(booted):
    """Before, what is said of it is for people; the rights of the unit are enough."""
    machine = booted("6.12", pvpanic=True, share=False)
    done = run(*LEAST, *KMEMDUMP, "check", f"qmp:{machine.qmp}", *FEW)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("warning  memory"))
    assert re.search(r"1\.0 GiB, .* in process [0-9]+: if it ends", lines[at])
    assert "→ start QEMU with -object memory-backend-file,share=on" in lines[at + 1]
    well = [line for line in lines[:-1] if line.startswith("ok ")]
    assert any(line.startswith("ok       pvpanic     pvpanic-pci: ") for line in well)
    # The folder for core images is not named, either.
    assert len(well) == len(lines) - 2 * 2 - 1
    assert "a death now would leave what was asked for: " in lines[-1]
    assert lines[-1].endswith("2 warnings")
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
        done = run_kmemdump("check", tmp_path, *FEW)
    assert done.returncode == 1
    [note] = done.stderr.splitlines()
    assert note.startswith("kmemdump: --area: only coreinfo, ")
    table, well, firmware, *rest = re.split(r"^qmp:", done.stdout, flags=re.MULTILINE)
    assert not rest
    rows = [line.split() for line in table.splitlines() if "qmp:" in line]
    assert [row[:2] for row in rows] == [
        [f"qmp:{tmp_path}/a.qmp", "warning"],
        [f"qmp:{tmp_path}/firmware.qmp", "missing"],
    ]
    assert rows[0][2] == machine.setup.kernel.release
    for name in ("actions", "memory", "pvpanic", "vmcoreinfo"):
        assert f"warning  {name:<11} " in firmware
    assert re.search(r"^missing  kernel .* no kernel found", firmware, re.MULTILINE)
    assert "the VM is in its firmware" in firmware
    assert "warning  pvpanic" in well


@pytest.mark.matrix
def test_a_kernel_that_lacks_symbols(booted, vmlinux, tmp_path):
    """Debian's 6.1 for aarch64 has no data symbols in kallsyms."""
    machine = booted("6.1", architecture=AARCH64)
    (target,) = check(f"qmp:{machine.qmp}", "-o", tmp_path, status=1)
    found = not_well(target)
    assert (found["symbols"], found["questions"]) == ("warning", "missing")
    assert "--vmlinux" in point(target, "symbols")["advice"]
    options = ("--vmlinux", vmlinux("6.1", AARCH64))
    (target,) = check(f"qmp:{machine.qmp}", "-o", tmp_path, *options)
    assert not_well(target) == {"pvpanic": "warning"}


@pytest.mark.matrix
def test_a_process(booted, tmp_path):
    """Without QMP, and without a folder that exists."""
    machine = booted("6.12", pvpanic=True, share=False)
    (target,) = check(f"pid:{machine.pid}", "-o", tmp_path / "new", status=1)
    assert not_well(target) == {
        **dict.fromkeys(("monitor", "memory", "hang"), "warning"),
        **dict.fromkeys(("registers", "questions"), "missing"),
    }
    assert "registers" in point(target, "questions")["text"]
    assert not (tmp_path / "new").exists()
