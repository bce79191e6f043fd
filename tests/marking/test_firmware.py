# SPDX-License-Identifier: GPL-2.0-or-later
"""Marking with firmware, without a machine; machines are in tests/test_firmware.py."""

from types import SimpleNamespace

import pytest

from kmemdump import (
    KinfoOptions,
    TableOptions,
    TargetError,
    UnsupportedError,
    UsageError,
    mark_firmware,
    mark_kinfo,
    open_target,
    unmark_firmware,
    unmark_kinfo,
)
from kmemdump.formats.kinfo import KINFO_MAGIC
from kmemdump.marking.firmware_table import FirmwareTable
from kmemdump.marking.lock import lock_table, table_name
from kmemdump.memory.ranges import Range, Region
from rigs.machine import SCRATCH, SMEM, FakeMachine, rows
from rigs.synthetic import elf_core, vmcoreinfo, vmcoreinfo_note

KINFO = Range(SMEM.start + 0x380000, 0x1000)


@pytest.fixture
def machine(monkeypatch):
    """A machine whose memory can be written."""
    memory = FakeMachine()
    for module in ("firmware_table", "kinfo"):
        home = f"kmemdump.marking.{module}"
        monkeypatch.setattr(f"{home}.check_writable", lambda target: None)
        monkeypatch.setattr(f"{home}.open_writable", lambda target, ranges: memory)
    return SimpleNamespace(name="qmp:/run/vm.qmp", memory=memory, machine=62)


def test_unmark_takes_off_what_an_earlier_run_registered(machine, tmp_path):
    options = TableOptions(smem=SMEM, scratch=SCRATCH, lock_folder=tmp_path)
    unmark_firmware(machine, options)  # There is nothing to take off.
    assert machine.memory.stores == []
    with FirmwareTable(machine, options) as table:
        assert table.reserved == [SMEM, SCRATCH]
        table.open_backend().register(Region(3, "kmsg", 0x80300000, 8))
    assert len(rows(machine.memory)) == 1
    unmark_firmware(machine, options)
    with FirmwareTable(machine, options) as table:
        assert rows(machine.memory) == []


def test_one_process_at_a_time(machine, tmp_path):
    options = TableOptions(smem=SMEM, scratch=SCRATCH, lock_folder=tmp_path)
    name = table_name(machine.name, "minidump", SMEM.start)
    assert name == f"run-vm.qmp-minidump-{SMEM.start:x}"
    with (
        lock_table(tmp_path, name),
        pytest.raises(UnsupportedError, match="already writes to this table"),
    ):
        unmark_firmware(machine, options)
    unmark_firmware(machine, options)  # It was unlocked.


def test_no_kernel_leaves_the_table_unlocked(machine, tmp_path):
    def no_kernel():
        raise TargetError("no kernel")

    machine.vmcoreinfo = no_kernel
    options = TableOptions(smem=SMEM, scratch=SCRATCH, lock_folder=tmp_path)
    with pytest.raises(TargetError, match="no kernel"):
        mark_firmware(machine, options)
    assert machine.memory.stores == []
    with lock_table(tmp_path, table_name(machine.name, "minidump", SMEM.start)):
        pass


def test_unmark_kinfo(machine):
    magic = KINFO_MAGIC.to_bytes(4, "little")
    machine.memory.put(KINFO.start, magic)
    unmark_kinfo(machine, KinfoOptions(KINFO))
    assert machine.memory.read(KINFO.start, 4) == bytes(4)


@pytest.mark.parametrize(
    "call", [mark_firmware, unmark_firmware, mark_kinfo, unmark_kinfo]
)
def test_files_cannot_be_written(tmp_path, call):
    path = tmp_path / "core"
    path.write_bytes(elf_core([(0x1000, bytes(4096))], vmcoreinfo_note(vmcoreinfo())))
    with (
        open_target(str(path)) as target,
        pytest.raises(UnsupportedError, match="cannot be written"),
    ):
        call(target)


def test_no_such_area(machine):
    with pytest.raises(UsageError, match="no area 'nosuch'"):
        mark_firmware(machine, areas=["nosuch"])
