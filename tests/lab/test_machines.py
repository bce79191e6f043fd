# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's machines boot, crash as they should, and leave nothing."""

import os
import re
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest

from kmemdump.errors import TargetError, UnsupportedError
from kmemdump.lab import (
    AARCH64,
    ARCHITECTURES,
    X86_64,
    CrashType,
    Machine,
    Setup,
    crash_guest,
)
from kmemdump.lab.machine import BootPanicError

pytestmark = pytest.mark.vm

PATIENCE = 120
"""Seconds; the host may be busy."""

# What each death leaves on the console.
LAST_WORDS = {
    CrashType.PANIC: "Kernel panic - not syncing: sysrq triggered crash",
    CrashType.NULL: "Fatal exception",
    CrashType.NMI: "Kernel panic - not syncing: NMI: Not continuing",
}


WAYS = [
    pytest.param(
        architecture,
        death,
        id=f"{architecture.name}-{death}",
        # The other kernels die so in the scenarios.
        marks=[] if architecture is X86_64 else pytest.mark.matrix,
    )
    for architecture, death in product(ARCHITECTURES, CrashType)
    if death is not CrashType.NMI or architecture.nmi
]
NULL = {
    "x86_64": "BUG: kernel NULL pointer dereference, address: 0000",
    "aarch64": "Unable to handle kernel NULL pointer dereference at virtual address 00",
}


@pytest.mark.parametrize(("architecture", "death"), WAYS)
def test_ways_to_die(booted, architecture, death):
    machine = booted("6.12", architecture=architecture)
    if death in (CrashType.SPIN, CrashType.SPIN_ALL):
        text = machine.run("cat /sys/module/kmemdump_lab/sections/.text")
    pid, folder = machine.pid, machine.folder
    assert machine.run("uname -r").startswith("6.12.")
    assert machine.run("uname -m") == architecture.name
    assert machine.control.status() == "running"
    assert machine.ram.stat().st_size == 1 << 30
    crash_guest(machine, death)
    if death in LAST_WORDS:
        assert LAST_WORDS[death] in machine.console
    else:
        assert "Kernel panic" not in machine.console
    if death is CrashType.NULL:
        assert NULL[architecture.name] in machine.console
    if death is CrashType.SPIN:
        assert spinning_cpus(machine, text) == 1
    else:  # With one CPU left, the guest may still serve its serial port.
        assert not answers(machine)
    if death is CrashType.SPIN_ALL:
        assert spinning_cpus(machine, text) == 2
    machine.close()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def spinning_cpus(machine, text):
    # The module's code is less than a page.
    page = re.escape(text.removeprefix("0x")[:-3])
    states = machine.control.command_line("info registers -a")
    return len(re.findall(rf"\b(?:RIP|PC)={page}", states))


@pytest.mark.matrix
def test_no_nmi(booted):
    machine = booted("6.12", architecture=AARCH64)
    with pytest.raises(UnsupportedError, match="aarch64: QEMU has no NMI"):
        crash_guest(machine, CrashType.NMI)


def answers(machine):
    machine.send("echo al''ive")
    deadline = time.monotonic() + 1
    try:
        while machine.serial_port.read(deadline) != "alive":
            pass
    except TargetError:
        return False
    return True


@pytest.fixture
def fresh(lab_cache, make_setup):
    setup = make_setup("6.12", cpus=3, memory=512, tasks=30, random=40)
    with Machine(lab_cache, setup) as machine:
        yield machine


def test_guest_is_as_described(fresh):
    machine = fresh
    assert machine.run("cat /proc/cpuinfo").count("processor\t") == 3
    assert machine.run("ps").count("sleep 1000000") == 30
    assert machine.run("ls -l /data").count(f" {16 << 20} ") == 3
    mounts = machine.run("cat /proc/mounts")
    for kind in ("proc", "sysfs", "devtmpfs", "tmpfs"):
        assert f" {kind} rw" in mounts
    assert {"dummy", "qemu_fw_cfg"} <= {
        line.split()[0] for line in machine.run("cat /proc/modules").splitlines()
    }
    assert "LOOPBACK,UP" in machine.run("ip link show lo")
    with pytest.raises(TargetError, match="'false' failed"):
        machine.run("false")
    with pytest.raises(TargetError, match="no answer in time"):
        machine.run("sleep 1000", timeout=0.2)


def test_commands_while_children_end(booted):
    """busybox's read forgets what it has begun when a child of its process ends."""
    machine = booted("6.12")
    for number in range(50):
        sleep = f"sleep 0.0{number % 9 + 1}"
        words = f"{number} 'a\\n' \"b\""
        text = machine.run(f"({sleep} &); {sleep} & sleep 0.02 & echo {words}")
        assert text == f"{number} a\\n b"


def test_pvpanic(booted):
    machine = booted(pvpanic=True, share=False)
    assert machine.ram is None
    assert not (machine.folder / "ram").exists()
    crash_guest(machine, CrashType.PANIC)
    assert machine.control.status() == "guest-panicked"
    events = iter(machine.control.event, None)
    assert "GUEST_PANICKED" in [event["event"] for event in events]


def test_reboot_keeps_the_memory(booted):
    machine = booted()
    machine.run("echo 1 >/proc/sys/kernel/panic")
    crash_guest(machine, CrashType.PANIC)
    deadline = time.monotonic() + PATIENCE
    while machine.control.status() == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert machine.control.status() == "shutdown"


@pytest.mark.matrix
def test_full_dump(booted, tmp_path):
    machine = booted(memory=256, cpus=2, tasks=0)
    machine.pause()
    assert machine.control.status() == "paused"
    core = tmp_path / "full.elf"
    machine.full_dump(core)
    machine.full_dump(core)  # Replaces it.
    content = core.read_bytes()
    assert content[:4] == b"\x7fELF"
    # NT_PRSTATUS of each CPU: name size, size and type, name.
    assert content.count(struct.pack("<III", 5, 336, 1) + b"CORE\0") == 2
    assert b"VMCOREINFO\0\0OSRELEASE=6.12." in content
    # The RAM file is the same memory: both begin at physical address 0. Below
    # 1 MiB the dump shows the firmware's ROM instead.
    headers = struct.unpack_from("<Q", content, 0x20)[0]  # e_phoff
    count = struct.unpack_from("<H", content, 0x38)[0]  # e_phnum
    ram = machine.ram.read_bytes()
    compared = 0
    for i in range(count):
        kind, _, offset, _, paddr, size = struct.unpack_from(
            "<IIQQQQ", content, headers + 56 * i
        )
        skip = max(0, (1 << 20) - paddr)
        if kind == 1 and skip < size and paddr < len(ram):
            ours = ram[paddr + skip : paddr + size]
            assert content[offset + skip : offset + size] == ours
            compared += len(ours)
    assert compared == len(ram) - (1 << 20)
    kdump = tmp_path / "full.kdump"
    machine.full_dump(kdump, format="kdump-zlib")
    # QEMU writes the flattened variant, which wraps each piece with its place.
    assert kdump.read_bytes().startswith(b"makedumpfile\0")
    machine.resume()
    assert machine.run("echo alive") == "alive"


@pytest.mark.matrix
def test_kernel_that_panics_in_its_boot_is_booted_once_more(
    lab_cache, make_setup, caplog
):
    setup = make_setup(arguments=("rdinit=/nowhere", "panic=0"))
    with (
        pytest.raises(BootPanicError, match=r"panicked in its boot; .*line: .*panic"),
        Machine(lab_cache, setup),
    ):
        pass
    assert [record.getMessage()[-16:] for record in caplog.records] == [
        "booting it again"
    ]


def test_kernel_that_does_not_boot_in_time(lab_cache, make_setup):
    with (
        pytest.raises(TargetError, match=r"did not boot in 0.5 s; .*last line"),
        Machine(lab_cache, make_setup(), timeout=0.5),
    ):
        pass


def test_qemu_that_does_not_start(lab_cache, make_setup):
    setup = make_setup(cpu="nonsense")
    with (
        pytest.raises(TargetError, match=r"qemu does not start: .*nonsense"),
        Machine(lab_cache, setup),
    ):
        pass


def test_killed_python_takes_qemu_along(lab_cache, make_setup):
    # Started by a process of its own, which is then killed in the hardest way.
    script = """if True:
        import sys, time
        from pathlib import Path
        from kmemdump.lab import Machine, PackageCache, Setup
        cache = PackageCache(Path(sys.argv[1]))
        machine = Machine(cache, Setup(cache.kernel("6.12"), tasks=0))
        machine.start()
        print(machine.pid, machine.folder, flush=True)
        time.sleep(1000)
    """
    python = subprocess.Popen(
        [sys.executable, "-c", script, lab_cache.folder], stdout=subprocess.PIPE
    )
    pid, folder = python.stdout.readline().decode().split()
    assert b"qemu" in Path(f"/proc/{pid}/cmdline").read_bytes()
    python.send_signal(signal.SIGKILL)
    python.wait()
    python.stdout.close()
    deadline = time.monotonic() + PATIENCE
    while _is_running(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(int(pid))
    # Its folder goes when the next machine comes.
    os.utime(folder, (0, 0))
    machine = Machine(lab_cache, make_setup(tasks=0))
    machine.start()
    machine.close()
    assert not Path(folder).exists()


def _is_running(pid):
    # A thread may have its files open still when the first one has ended.
    states = []
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            states.append(path.read_text().rpartition(")")[2].split()[0])
    # Whoever inherits it may be slow to collect it.
    return any(state not in "ZX" for state in states)


def test_vmlinux_is_the_kernels(vmlinux, lab_kernel):
    for which in (("6.12", X86_64), ("6.12", AARCH64), ("newest", X86_64)):
        path = vmlinux(*which)
        assert path.name == f"vmlinux-{lab_kernel(*which).release}"
        assert path.stat().st_size > 100 << 20
        with open(path, "rb") as file:
            assert file.read(4) == b"\x7fELF"


def test_setup_is_hashable(make_setup):
    # A fixture may keep machines by their setup.
    setup = make_setup()
    assert {setup: 1}[Setup(setup.kernel, module=setup.module)] == 1
