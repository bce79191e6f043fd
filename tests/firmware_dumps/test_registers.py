# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers that firmware saved: an ELF file of notes among the regions."""

import struct
from pathlib import Path

from kmemdump.files import OpenFile
from kmemdump.firmware_dumps.folder import collect_folder
from kmemdump.firmware_dumps.rawdump import collect_rawdump
from kmemdump.firmware_dumps.target import DumpTarget
from rigs.phone import Phone
from rigs.writers.rawdump import Sect, write_rawdump

STATUS = [bytes([cpu + 1]) * 392 for cpu in range(2)]  # aarch64's struct elf_prstatus.


def elf(notes: bytes) -> bytes:
    """A core file for aarch64 with nothing but notes."""
    fields = (4, 183, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", *fields)
    program = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(notes), len(notes), 4)
    return head + program + notes


NOTES = b"".join(
    struct.pack("<III", 5, len(status), 1) + b"CORE\0\0\0\0" + status
    for status in STATUS
)


def test_in_a_folder(tmp_path: Path) -> None:
    folder = Phone.with_log().folder(tmp_path / "dump")
    (folder / "md_CPUS.BIN").write_bytes(elf(NOTES))
    target = DumpTarget(collect_folder(folder))
    assert target.dump.problems == ()
    assert target.registers() == STATUS
    target.close()


def test_in_an_image(tmp_path: Path) -> None:
    phone = Phone.with_log()
    sections = [
        Sect(f"md_{row.name}.BIN", row.padded, row.address) for row in phone.table
    ]
    path = tmp_path / "image"
    for data, problems, registers in (
        (elf(NOTES), (), STATUS),
        (b"some vendor's", ("section CPU_CTX (CPU context) is not used",), []),
    ):
        path.write_bytes(write_rawdump([*sections, Sect("CPU_CTX", data, type=2)]))
        file = OpenFile(path)
        target = DumpTarget(collect_rawdump(file))
        file.close()
        assert target.dump.problems == problems
        assert target.registers() == registers
        target.close()
