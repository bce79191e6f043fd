# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of Xen's domains as targets, and with a real kernel in them."""

import logging
import re

import pytest

from kmemdump.errors import FormatError, TargetError, UnsupportedError
from kmemdump.kernel.attach import attach
from kmemdump.memory.ranges import Range
from kmemdump.opening import open_target
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import answer
from rigs.synthetic import SWAPPER, elf_core, vmcoreinfo, vmcoreinfo_note
from rigs.writers.xen_core import PAGE, PV, context, write_xen_core, xen_core

INFO = vmcoreinfo()
NOTE = vmcoreinfo_note(INFO).ljust(PAGE, b"\0")
PAGES = {1: b"a" * PAGE, 2: b"b" * PAGE, 9: NOTE}
CPUS = [context({"rip": 5, "cs": 16}, SWAPPER), context({}, online=False)]


def save(tmp_path, data):
    path = tmp_path / "dump"
    path.write_bytes(data)
    return str(path)


def test_memory_and_registers(tmp_path):
    target = open_target(save(tmp_path, xen_core(PAGES, CPUS, invalid=2)))
    assert target.machine == 62
    assert target.memory.ranges == [Range(PAGE, 2 * PAGE), Range(9 * PAGE, PAGE)]
    assert target.memory.read(2 * PAGE - 1, 2) == b"ab"
    assert target.vmcoreinfo().raw == INFO
    (status,) = target.registers()  # The other CPU is offline.
    assert status[112 + 16 * 8 : 112 + 17 * 8] == bytes([5, *bytes(7)])  # RIP
    target.close()


@pytest.mark.parametrize(
    ("data", "error", "problem"),
    [
        (xen_core(PAGES, magic=PV), UnsupportedError, "paravirt.*crash VMLINUX"),
        (xen_core(PAGES, machine=183), UnsupportedError, "Xen domain of machine 183"),
        (xen_core({}), TargetError, "holds no memory"),
        (xen_core(PAGES)[:-1], FormatError, "1 bytes are missing"),
        (
            elf_core([])[:56] + b"\0\0" + b"\x40\0\1\0".ljust(70, b"\0"),
            FormatError,
            "without .note.Xen, expected the sections of Xen's dump-core",
        ),
    ],
)
def test_refused(tmp_path, data, error, problem):
    with pytest.raises(error, match=f"(?s){problem}"):
        open_target(save(tmp_path, data))


def test_registers_of_another_xen_cost_only_themselves(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    target = open_target(save(tmp_path, xen_core(PAGES, [bytes(5000)])))
    assert target.registers() == []
    assert "CPU 0: 5000 bytes, expected 5168" in caplog.text
    target.close()


WORDS = ("AX", "BX", "CX", "DX", "SI", "DI", "BP", "SP", "IP")
SEGMENTS = ("CS", "SS", "ES", "DS", "FS", "GS")
# Names of QEMU's "info registers" and of Xen's struct cpu_user_regs.
NAMES = {
    **{f"R{number}": f"r{number}" for number in range(8, 16)},
    **{f"R{it}": f"r{it.lower()}" for it in WORDS},
    "RFL": "rflags",
    **{name: name.lower() for name in SEGMENTS},
}


def contexts(told):
    """Return what Xen would have said of the CPUs that QEMU tells of."""
    for part in re.split(r"CPU#\d+", told)[1:]:
        pairs = re.findall(r"\b([A-Z][A-Z0-9]+) *=([0-9a-f]{4,16})", part)
        found = {name: int(value, 16) for name, value in pairs}
        base = re.search(r"GS =\w+ (\w+)", part)
        registers = {theirs: found[ours] for ours, theirs in NAMES.items()}
        yield context(registers, found["CR3"], gs=int(base[1], 16))


@pytest.mark.vm
@pytest.mark.matrix
def test_a_real_kernel(booted, tmp_path):
    """Xen's dump of a guest says what the guest's monitor says."""
    machine = booted("6.12", share=True)
    machine.pause()
    vm = open_target(f"qmp:{machine.qmp}")
    (ram,) = vm.memory.ranges
    told = vm.client.command_line("info registers -a")
    frames = [it for it in range(ram.size // PAGE) if not 0xA0 <= it < 0xC0]
    path = tmp_path / "dump"
    with path.open("wb") as file:
        write_xen_core(
            file, frames, lambda it: vm.memory.read(it * PAGE, PAGE), [*contexts(told)]
        )
    dump = open_target(str(path))
    assert dump.vmcoreinfo() == vm.vmcoreinfo()
    expected, found = attach(vm).prog, attach(dump).prog
    for text in ("log", "ps", "bt -a", "mod", "mount"):
        assert answer(found, command(text)) == answer(expected, command(text))
    dump.close()
    vm.close()
