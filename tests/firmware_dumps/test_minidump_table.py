# SPDX-License-Identifier: GPL-2.0-or-later
"""The table in a machine's memory, from marking to a dump."""

from pathlib import Path

import pytest

from kmemdump.backends.elf_header_region import Description
from kmemdump.backends.minidump import MinidumpBackend
from kmemdump.errors import FormatError, NotCapturedError, TargetError
from kmemdump.firmware.minidump_table import read_table
from kmemdump.firmware_dumps.minidump_table import collect_table
from kmemdump.firmware_dumps.target import DumpTarget
from kmemdump.formats.elf import pack_note
from kmemdump.kernel.attach import attach
from kmemdump.marking.registry import Registry
from kmemdump.memory.ranges import Range
from kmemdump.opening import open_target
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import answer
from rigs.machine import FOREIGN, SCRATCH, SMEM, TOC, FakeMachine
from rigs.phone import LOG, Phone, vmcoreinfo
from rigs.writers import put
from rigs.writers.minidump import (
    VALI,
    smem_with,
    write_old,
    write_regions,
    write_toc,
)

STATUS = pack_note("CORE", 1, bytes([1]) * 392)


def test_marked_by_us(tmp_path: Path) -> None:
    """What our backend registers, our collector puts together."""
    machine, phone = FakeMachine(), Phone.with_log()
    registry = Registry(
        machine.ranges, description=Description(183, vmcoreinfo(), STATUS)
    )
    registry.attach(MinidumpBackend(machine, SMEM, scratch=SCRATCH, no_encryption=True))
    for row in phone.rows:
        machine.put(row.address, row.data)
        registry.register(row.name[1:], row.address, len(row.data), virtual=row.virtual)
    # The kernel's own VMCOREINFO is in what was marked, too.
    machine.put(0x80360000, vmcoreinfo())
    registry.register("text", 0x80360000, len(vmcoreinfo()))
    collected = collect_table(machine, SMEM)
    assert collected.problems == ()
    assert collected.missing == ()
    target = DumpTarget(collected)
    assert target.registers() == [bytes([1]) * 392]
    assert answer(attach(target).prog, command("log")) == LOG
    # And so do files of it, that nobody tells the addresses of.
    for row in read_table(machine, SMEM).regions:
        path = tmp_path / f"md_{row.name}{row.sequence}.BIN"
        path.write_bytes(machine.read(row.address, row.size))
    target = open_target(str(tmp_path))
    assert target.dump.problems == ()
    assert target.dump.missing == ()
    assert answer(attach(target).prog, command("log")) == LOG


def test_problems_are_told() -> None:
    toc = write_toc(array=FOREIGN, count=3, initialized=1, status=0)
    machine = FakeMachine(toc)
    rows = [
        ("a", 3, VALI, 0x80300000, 6),
        ("b", 4, b"AVNI", 0x80300004, 4),
        ("c", 5, VALI, 0x80300004, 4),
    ]
    machine.put(FOREIGN, write_regions(rows))
    table = read_table(machine, SMEM)
    assert [row.name for row in table.regions] == ["a", "b", "c"]
    assert [problem.split(":")[0] for problem in table.problems] == [
        "the table's status is 0",
        "firmware may encrypt the dump, or refuse it",
        "no row is an ELF header (KELF)",
        "row 0 (a) has 6 bytes, no multiple of 4",
        "row 1 (b) is not valid",
        "row 2 (c) overlaps row 0 (a)",
    ]
    put(machine.data, TOC + 16 + 4 - SMEM.start, 4, 0)
    assert "is not enabled" in read_table(machine, SMEM).problems[1]


def test_memory_that_is_not_there() -> None:
    machine = FakeMachine(write_toc(array=FOREIGN, count=2, initialized=1))
    end = machine.ranges[0].end
    rows = [("a", 3, VALI, end - 8, 16), ("b", 4, VALI, 1 << 60, 1 << 62)]
    machine.put(FOREIGN, write_regions(rows))
    collected = collect_table(machine, SMEM)
    assert [it.range for it in collected.missing] == [Range(end, 8)]
    assert collected.memory.ranges == [Range(end - 8, 8)]


def test_oldest_layout() -> None:
    machine = FakeMachine()
    old = write_old([("KLOGBUF", 0x80300000, 16)])
    machine.put(SMEM.start, smem_with(old))
    table = read_table(machine, SMEM)
    assert table.toc is None
    assert [row.name for row in table.regions] == ["KLOGBUF"]
    assert collect_table(machine, SMEM).memory.ranges == [Range(0x80300000, 16)]


def test_refused() -> None:
    with pytest.raises(FormatError, match="at most 67108864"):
        read_table(FakeMachine(), Range(0, 1 << 40))
    with pytest.raises(FormatError, match="no subsystem 99"):
        read_table(FakeMachine(), SMEM, subsystem=99)
    with pytest.raises(NotCapturedError):
        read_table(FakeMachine(), Range(0x1000, 0x40000))
    with pytest.raises(
        TargetError, match="has no valid regions\nthe subsystem has not"
    ):
        collect_table(FakeMachine(), SMEM)
