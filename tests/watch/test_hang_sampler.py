# SPDX-License-Identifier: GPL-2.0-or-later
"""Samples of a VM that is made by hand: registers as QEMU prints them, and counters."""

from types import SimpleNamespace

import pytest

from kmemdump.formats.elf import EM_X86_64
from kmemdump.watch import hang_sampler
from kmemdump.watch.hang_detector import CpuSample, Hang
from kmemdump.watch.hang_sampler import HangSampler

CPU = (
    "CPU#{}\nRIP=ffffffff81000000 RFL={:08x} [-------] CPL={} II=0 A20=1 SMM=0 HLT={}\n"
)
IF = 0x200


class Vm:
    """A VM with two CPUs, its control, its marks and its progress, all in one."""

    def __init__(self):
        self.state = "running"
        self.registers = [(IF, 0, 1), (IF, 0, 1)]
        """Of each CPU: flags, privilege level, halted."""
        self.counters = [0, 0]
        self.idle = [True, True]
        self.idling = [True, True]
        self.clock = 0
        self.has_counters = True
        self.answers = True
        self.machine, self.memory = EM_X86_64, None
        self.client = self.target = self.progress = self

    def execute(self, command):
        return []

    def command_line(self, line):
        return "".join(
            CPU.format(i, *values) for i, values in enumerate(self.registers)
        )

    def status(self):
        return self.state

    def jiffies(self, memory):
        return self.clock

    def cpus(self, memory):
        return {
            i: CpuSample(bytes([count]), idle)
            for i, (count, idle) in enumerate(
                zip(self.counters, self.idle, strict=True)
            )
        }

    def is_idling(self, memory, cpu, pc):
        return self.idling[cpu]

    def is_waiting(self, memory, pc):
        return False


@pytest.fixture
def sample(monkeypatch):
    """``sample(vm, seconds)`` is what is found in some samples of one second."""
    now = [0.0]
    monkeypatch.setattr(hang_sampler, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def run(sampler, vm, seconds):
        found = []
        for _ in range(seconds):
            now[0] += sampler.interval
            vm.clock += 250
            vm.counters[1] += 1  # The other CPU lives.
            found.append(sampler.sample())
        return [hang for hang in found if hang is not None]

    return run


@pytest.mark.parametrize(
    ("registers", "idle", "idling", "expected"),
    [
        ((IF, 0, 1), True, True, None),  # Idle.
        ((IF, 0, 0), True, True, None),  # Waits by MWAIT.
        ((IF, 3, 0), False, True, None),
        ((0, 0, 0), False, True, "CPU 0 served no interrupt for 5 s"),
        # In an interrupt over its idle task, or in a loop of one instruction.
        ((0, 0, 0), True, False, "CPU 0 served no interrupt for 5 s"),
        ((0, 0, 1), False, True, "CPU 0 stood halted with interrupts off for 5 s"),
        ((0, 0, 1), True, True, "CPU 0 stood halted with interrupts off for 5 s"),
    ],
)
def test_one_of_two(sample, registers, idle, idling, expected):
    vm = Vm()
    vm.registers[0], vm.idle[0], vm.idling[0] = registers, idle, idling
    vm.idle[1], vm.registers[1] = False, (IF, 0, 0)
    sampler = HangSampler(vm, vm, 5.0)
    found = sample(sampler, vm, 12)
    assert [str(hang) for hang in found] == ([expected] if expected else [])
    assert sampler.count == 12
    # Of the two, one was never seen to move.
    assert not sampler.has_moved(Hang((0,), 5.0))
    assert sampler.has_moved(Hang((1,), 5.0))
    assert sampler.has_moved(Hang((0, 1), 5.0))
    assert sampler.has_moved(Hang((), 5.0))


def test_without_counters(sample):
    vm = Vm()
    vm.has_counters = False
    vm.registers = [(0, 0, 0), (IF, 0, 1)]
    sampler = HangSampler(vm, vm, 5.0)
    found = sample(sampler, vm, 30)
    assert [str(hang) for hang in found] == ["CPU 0 had interrupts off for 5 s"]
    assert sampler.interval < 1
    assert not sampler.has_moved(Hang((0,), 5.0))
    assert sampler.has_moved(Hang((1,), 5.0))


def test_paused(sample):
    vm = Vm()
    vm.registers[0], vm.state = (0, 0, 1), "paused"
    assert sample(HangSampler(vm, vm, 5.0), vm, 20) == []
