# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching kernels of which nothing but the log is known."""

import re
from contextlib import closing

import pytest

from kmemdump.arch.architecture import image_address
from kmemdump.coreimage import read_core, verify
from kmemdump.kernel.attach import attach
from kmemdump.kernel.tasks import stack_of_registers
from kmemdump.lab import AARCH64, CrashType
from kmemdump.lab.crashes import trigger_crash
from kmemdump.memory.ranges import Range
from kmemdump.opening import open_target
from kmemdump.targets.writable import open_writable
from rigs.programs import run_kmemdump
from rigs.watching import seconds_of

pytestmark = pytest.mark.vm

LONG = 8
ALONE = r"marked .*; its state is known from its log alone: .*"
OPTIONS = ["--hang-after", "3", "--interval", "3"]


def overwrite(machine, name, size):
    """Overwrite a table in the memory of a VM that runs; it is in none of its files."""
    with closing(open_target(f"qmp:{machine.qmp}")) as target:
        prog, info = attach(target).prog, target.vmcoreinfo()
        if name.startswith("kallsyms_"):
            start = info.symbol(name)
        else:
            start = prog.symbol(f"__start_{name}").address
            size = prog.symbol(f"__stop_{name}").address - start
        place = Range(image_address(info, start), size)
        with closing(open_writable(target, [place])) as memory:
            memory.write(place.start, bytes(size))


def check_core(path, vmlinux, *expected):
    """It has the log; the stacks and registers, for whoever has the vmlinux."""
    core = read_core(path)
    assert verify(core) == []
    core.close()
    log = run_kmemdump("ask", path, "log")
    assert (log.returncode, log.stderr) == (0, "")
    report = run_kmemdump("report", path)
    assert report.returncode == 1
    with closing(open_target(str(path))) as target:
        kernel = attach(target, vmlinux=vmlinux)
        cpus = range(len(kernel.registers))
        stacks = [stack_of_registers(kernel.prog, cpu) for cpu in cpus]
        names = [frame.name for stack in stacks for frame in stack]
    for name in expected:
        assert name in names, names
    return log.stdout, report.stdout


@pytest.mark.parametrize(
    ("table", "size", "problem"),
    [
        ("BTF", 0, "BTF at .*: magic 0x0"),
        pytest.param(
            *("kallsyms_token_table", 512, "no kallsyms"), marks=pytest.mark.matrix
        ),
    ],
)
def test_panic(booted, watch, vmlinux, table, size, problem):
    machine = booted("6.12")
    overwrite(machine, table, size)
    watched = watch(machine, arguments=OPTIONS)
    watched.wait_for(ALONE + problem)
    watched.wait_without_alarm(LONG)
    trigger_crash(machine, CrashType.PANIC)
    seconds_of(watched, "panic: ")
    assert watched.end() == 0
    [core] = watched.cores
    log, report = check_core(core, vmlinux("6.12"), "panic", "sysrq_handle_crash")
    assert "Kernel panic - not syncing: sysrq triggered crash" in log
    assert "made the kernel crash on purpose, through sysrq" in report


def test_oops(booted, watch):
    """The kernel goes on, and is watched on."""
    machine = booted("6.12", cpus=1)
    overwrite(machine, "BTF", 0)
    watched = watch(machine, arguments=[*OPTIONS, "--then", "continue"])
    watched.wait_for(ALONE)
    machine.run("sh -c 'echo null >/sys/module/kmemdump_lab/parameters/die' &")
    seconds_of(watched, "oops: The kernel dereferenced a NULL pointer")
    assert machine.run("echo I live") == "I live"
    watched.wait_without_alarm(LONG)
    machine.send("echo c >/proc/sysrq-trigger")
    seconds_of(watched, "panic: ")
    machine.control.execute("quit")
    watched.end()
    assert len(watched.cores) == 2


@pytest.mark.matrix
def test_hang(booted, watch, vmlinux):
    machine = booted("6.12")
    overwrite(machine, "BTF", 0)
    watched = watch(machine, arguments=OPTIONS)
    watched.wait_for(ALONE)
    machine.run("busybox timeout 15 sh -c 'while :; do :; done' &")
    watched.wait_without_alarm(LONG)  # One CPU is busy in user space.
    trigger_crash(machine, CrashType.SPIN)
    seconds_of(watched, r"frozen: CPU [01] had interrupts off for")
    assert watched.end() == 0
    [core] = watched.cores
    _, report = check_core(core, vmlinux("6.12"))
    assert re.search(
        r"CPU \d hangs in 0xffffffff[0-9a-f]{8}: had interrupts off", report
    )
    # Without unwind tables, nothing is guessed; what is missing is said once.
    places = re.findall(r"#\d+ +(\S+)", report)
    assert all(place.startswith("0xffffffff") for place in places)
    assert report.count("symbols and types") == 1


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("death", "cause", "expected"),
    [
        (CrashType.SPIN, r"frozen: CPU [01] served no interrupt for", "hangs"),
        (CrashType.PANIC, "panic: ", "through sysrq"),
    ],
)
def test_kernel_without_names(booted, watch, vmlinux, death, cause, expected):
    """Debian's arm64 6.1: it has no symbol of what says that it panicked."""
    machine = booted("6.1", architecture=AARCH64)
    watched = watch(machine, arguments=OPTIONS)
    watched.wait_for(ALONE)
    watched.wait_without_alarm(LONG)
    trigger_crash(machine, death)
    seconds_of(watched, cause)
    assert watched.end() == 0
    [core] = watched.cores
    _, report = check_core(core, vmlinux("6.1", AARCH64))
    assert expected in report


@pytest.mark.matrix
def test_hang_on_aarch64(booted, watch):
    """QEMU does not show whether a CPU of Arm waits; its instruction does."""
    machine = booted("6.12", architecture=AARCH64)
    overwrite(machine, "kallsyms_token_table", 512)
    watched = watch(machine, arguments=OPTIONS)
    watched.wait_for(ALONE)
    watched.wait_without_alarm(LONG)
    trigger_crash(machine, CrashType.SPIN)
    seconds_of(watched, r"frozen: CPU [01] had interrupts off for")
    assert watched.end() == 0
    assert len(watched.cores) == 1


def test_reboot(booted, watch):
    """An orderly reboot is told from a reset; the next boot is not the old one."""
    machine = booted("6.12", cpus=1)
    overwrite(machine, "BTF", 0)
    watched = watch(machine, arguments=["--then", "continue"])
    watched.wait_for(ALONE)
    lines = len(watched.lines)
    machine.send("busybox reboot -f")
    watched.wait_for("rebooted in an orderly way")
    machine.wait_ready()
    watched.wait_for("marked .* areas", after=lines)
    assert watched.cores == []
    machine.control.execute("quit")
    watched.end()
