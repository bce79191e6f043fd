# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets of real kernels: every way to the same memory gives the same bytes."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from kmemdump.arch.architecture import arch_from_elf, image_address
from kmemdump.cli import main
from kmemdump.errors import KmemdumpError, NotCapturedError, TargetError
from kmemdump.kernel.attach import attach
from kmemdump.kernel_search.notes import is_present
from kmemdump.lab import AARCH64, X86_64, Machine
from kmemdump.memory.ranges import Range
from kmemdump.opening import open_target
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import answer
from kmemdump.targets import Target
from kmemdump.targets.qmp_registers import parse_registers

pytestmark = pytest.mark.vm

GIB = 1 << 30
LEGACY = range(0xA0000, 0x100000)
"""QEMU's dumps show video memory and ROMs there."""


def samples(target: Target, count: int) -> list[tuple[int, int]]:
    """Return places in the kernel's image, and others all over."""
    info = target.vmcoreinfo()
    base = image_address(info, info.symbol("_stext"))
    places = [(base + i * 0x10000, 5000) for i in range(400)]
    for item in target.memory.ranges:
        places += [
            (random.randrange(item.start, item.end - 5000), 5000) for _ in range(count)
        ]
        places.append((item.end - 5000, 5000))
    return [
        (at, size) for at, size in places if at + size <= LEGACY[0] or at > LEGACY[-1]
    ]


def assert_same(left: Target, right: Target, count: int = 1000) -> None:
    places = samples(left, count)
    for address, size in places:
        assert left.memory.read(address, size) == right.memory.read(address, size), (
            f"{left.name} and {right.name} differ at {address:#x}"
        )
    assert sum(any(left.memory.read(*place)) for place in places) > 300


RAM = {X86_64: 0, AARCH64: GIB}


@pytest.mark.parametrize(
    ("architecture", "share"),
    [
        (X86_64, True),
        pytest.param(X86_64, False, marks=pytest.mark.matrix),
        pytest.param(AARCH64, True, marks=pytest.mark.matrix),
        pytest.param(AARCH64, False, marks=pytest.mark.matrix),
    ],
    ids=lambda item: getattr(item, "name", None),
)
def test_all_ways_lead_to_the_same_memory(booted, tmp_path, share, architecture):
    machine = booted("6.12", share=share, pvpanic=not share, architecture=architecture)
    machine.pause()
    vm = open_target(f"qmp:{machine.qmp}")
    assert (" in process " in vm.memory.name) is not share
    assert vm.memory.ranges == [Range(RAM[architecture], GIB)]
    assert vm.status() == "paused"
    info = vm.vmcoreinfo()
    assert info.osrelease.startswith("6.12.")
    assert is_present(info, vm.memory)
    assert len(vm.registers()) == 2
    assert vm.status() == "paused"
    told = vm.client.command_line("info registers -a")
    notes = parse_registers(told, arch_from_elf(vm.machine), "vm")
    # But for pr_fpvalid, which is true of an Arm dump: that has a note of those, too.
    assert [it.desc[:-8] for it in notes] == [it[:-8] for it in vm.registers()]
    ways = []
    for format_ in ("elf", "kdump-zlib"):
        path = tmp_path / format_
        machine.full_dump(path, format=format_)
        ways.append(path)
    if share:
        ways.append(machine.ram)
    for path in ways:
        dump = open_target(str(path))
        assert dump.vmcoreinfo() == info
        assert dump.machine == vm.machine
        if path != machine.ram:
            assert dump.registers() == vm.registers()
        assert_same(vm, dump)
        dump.close()
    assert_same_by_process(machine, vm)
    vm.close()


@pytest.mark.matrix
@pytest.mark.parametrize("share", [False, True])
def test_two_nodes(lab_cache, make_setup, share, tmp_path):
    """Of NUMA: each is memory of its own in QEMU, and in its process."""
    with Machine(lab_cache, make_setup("6.12", nodes=2, share=share)) as machine:
        assert machine.run("cat /sys/devices/system/node/has_memory") == "0-1"
        machine.pause()
        machine.full_dump(tmp_path / "dump")
        with (
            open_target(f"qmp:{machine.qmp}") as vm,
            open_target(str(tmp_path / "dump")) as dump,
        ):
            assert vm.memory.ranges == [Range(0, GIB)]
            assert_same(vm, dump)
            assert_same_by_process(machine, vm, nodes=2)


def assert_same_by_process(machine: Machine, vm: Target, nodes: int = 1) -> None:
    """Without QMP, the process has the same memory, and gives the same answers."""
    with open_target(f"pid:{machine.pid}") as process:
        if nodes == 1:  # Else it may be in another one than the kernel.
            assert process.vmcoreinfo() == vm.vmcoreinfo()
        assert process.machine == vm.machine
        assert_same(vm, process)
        assert process.memory.ranges == vm.memory.ranges
        assert process.registers() == []
        answers = [
            [answer(attach(target).prog, command(it)) for it in ("ps", "log", "bt 2")]
            for target in (vm, process)
        ]
    assert answers[0] == answers[1]


MAX = "max,pauth-impdef=on"  # Signs addresses in a way that takes less time.
BOTH_SIDES = [Range(0, 2 * GIB), Range(4 * GIB, GIB)]


@pytest.mark.parametrize(
    ("architecture", "cpu", "ranges", "line"),
    [
        pytest.param(
            *(X86_64, "qemu64", BOTH_SIDES, "NUMBER(pgtable_l5_enabled)=0"),
            marks=pytest.mark.matrix,
        ),
        pytest.param(
            *(X86_64, "max", BOTH_SIDES, "NUMBER(pgtable_l5_enabled)=1"),
            marks=pytest.mark.matrix,
        ),
        pytest.param(
            *(AARCH64, "cortex-a72", [Range(GIB, 3 * GIB)]),
            "NUMBER(TCR_EL1_T1SZ)=0x10",
            marks=pytest.mark.matrix,
        ),
        pytest.param(
            *(AARCH64, "max", [Range(GIB, 3 * GIB)], "NUMBER(TCR_EL1_T1SZ)=0xc"),
            marks=pytest.mark.matrix,
        ),
        pytest.param(
            *(AARCH64, MAX, [Range(GIB, 3 * GIB)], "NUMBER(TCR_EL1_T1SZ)=0xc"),
            marks=pytest.mark.matrix,
        ),
    ],
    ids=lambda item: getattr(item, "name", None) or str(item)[:11],
)
def test_guest_that_tells_nothing(booted, tmp_path, architecture, cpu, ranges, line):
    """
    No VMCOREINFO from the guest, RAM on both sides of the hole, tables of five levels;
    on an Arm CPU that has it, signed return addresses.
    """
    machine = booted(
        "6.12",
        architecture=architecture,
        memory=3072,
        share=True,
        vmcoreinfo=False,
        cpu=cpu,
    )
    assert "qemu_fw_cfg" not in machine.run("cat /proc/modules")
    vm = open_target(f"qmp:{machine.qmp}")
    assert vm.memory.ranges == ranges
    start = time.process_time()
    info = vm.vmcoreinfo()
    assert time.process_time() - start < 10  # It is not all of RAM that is read.
    assert f"{line}\n" in info.raw.decode()
    assert vm.status() == "running"
    vm.stop()
    image = open_target(str(machine.ram))
    assert image.memory.ranges == ranges
    assert image.vmcoreinfo().raw == info.raw
    assert_same(vm, image)
    assert_same_by_process(machine, vm)
    image.close()
    machine.full_dump(tmp_path / "dump", format="kdump-zlib")
    dump = open_target(str(tmp_path / "dump"))
    assert dump.vmcoreinfo().raw == info.raw
    assert_same(vm, dump)
    check_stacks(dump, tmp_path / "core", SYSCALL[architecture])
    dump.close()
    vm.cont()
    assert vm.status() == "running"
    vm.close()


SYSCALL = {X86_64: "do_syscall_64", AARCH64: "do_el0_svc"}


def check_stacks(dump: Target, path: Path, expected: str) -> None:
    """Stack traces are whole, in the dump and in a core image of it."""
    assert main(["capture", dump.name, "-o", str(path)]) == 0
    core = open_target(str(path))
    whole, kept = attach(dump).prog, attach(core).prog
    for text in ("bt 1", "bt -a"):
        assert answer(kept, command(text)) == answer(whole, command(text))
    assert expected in answer(whole, command("bt 1"))
    core.close()


def ask_on(vm: Target) -> None:
    for _ in range(100_000):
        vm.registers()
        vm.memory.read(16 << 20, 1 << 20)


@pytest.mark.parametrize("share", [True, False])
def test_vm_that_goes_away(booted, share):
    machine = booted("6.12", share=share, pvpanic=not share)
    vm = open_target(f"qmp:{machine.qmp}")
    pid = machine.pid
    threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises((TargetError, NotCapturedError)):
        ask_on(vm)
    with pytest.raises(TargetError, match="went away"):
        vm.status()
    if not share:
        with pytest.raises(NotCapturedError):
            vm.memory.read(16 << 20, 4096)
    vm.close()


def test_vm_that_hangs(booted):
    machine = booted("6.12")
    os.kill(machine.pid, signal.SIGSTOP)
    try:
        with pytest.raises(KmemdumpError, match="no answer from QEMU"):
            open_target(f"qmp:{machine.qmp}")
    finally:
        os.kill(machine.pid, signal.SIGCONT)
    open_target(f"qmp:{machine.qmp}").close()
