# SPDX-License-Identifier: GPL-2.0-or-later
"""A ``Raw_Dmp!`` image that was made to take time, memory, or its other sections."""

import time
from pathlib import Path

import pytest

from kmemdump.errors import TargetError
from kmemdump.files import OpenFile
from kmemdump.firmware_dumps.assemble import FirmwareDump
from kmemdump.firmware_dumps.folder import collect_folder
from kmemdump.firmware_dumps.rawdump import collect_rawdump
from kmemdump.formats.elf import ProgramHeader, pack_header, pack_note
from rigs.writers import put
from rigs.writers.elfheader import write_series
from rigs.writers.rawdump import Sect, write_rawdump

GOOD = Sect("ddr", b"d" * 64, 0x80000000, type=1)
CPU = 2


def collect(path: Path, data: bytes) -> FirmwareDump:
    path.write_bytes(data)
    file = OpenFile(path)
    try:
        return collect_rawdump(file)
    finally:
        file.close()


def test_a_broken_section_costs_that_section(tmp_path: Path) -> None:
    data = bytearray(write_rawdump([GOOD, Sect("cpu", b"c" * 16, type=CPU)]))
    put(data, 56 + 64 + 12, 8, 1 << 63)  # Its offset.
    dump = collect(tmp_path / "raw", bytes(data))
    assert dump.memory.read(0x80000000, 64) == GOOD.data
    assert any("cpu" in line for line in dump.problems)


def test_sections_that_overlap(tmp_path: Path) -> None:
    """Each overlaps all that come before it, and differs from them."""
    count = 6000
    data = bytearray(write_rawdump([Sect("s", b"")] * count))
    end = len(data)
    data += b"".join(i.to_bytes(4, "little") for i in range(10 * count))
    for i in range(count):
        put(data, 56 + 64 * i + 12, 8, end + i * 7 % 60, 10 * (i + 1) - i, i)
    before = time.process_time()
    dump = collect(tmp_path / "raw", bytes(data))
    assert time.process_time() - before < 20  # 80 s before.
    assert len(dump.problems) <= 1000
    assert len(dump.regions) == count


def test_sections_that_seem_to_be_headers(tmp_path: Path) -> None:
    """Each has too many notes, which is seen when they are parsed."""
    notes = pack_note("CORE", 5, b"") * 16385
    elf = pack_header(62, [ProgramHeader(4, 0, 120, 0, 0, len(notes), 0, 0)]) + notes
    count = 1000
    data = bytearray(write_rawdump([GOOD, *[Sect("c", b"", type=CPU)] * count]))
    for i in range(1, count + 1):
        put(data, 56 + 64 * i + 12, 8, len(data), len(elf))
    before = time.process_time()
    dump = collect(tmp_path / "raw", bytes(data) + elf)
    assert time.process_time() - before < 20  # 67 s before.
    assert dump.memory.read(0x80000000, 64) == GOOD.data


def test_too_many_to_match(tmp_path: Path) -> None:
    """A folder with files of no address, and a header with as many regions."""
    loads = [(f"r{i}", 0xFFFF800080000000 + i, 0x80000000 + i, 8) for i in range(9000)]
    header = write_series(loads, b"OSRELEASE=6.12\n", slots=len(loads) + 1)
    (tmp_path / "md_KELF.BIN").write_bytes(header)
    for i in range(1000):
        (tmp_path / f"md_K{i}.BIN").write_bytes(b"x" * 9)
    before = time.process_time()
    with pytest.raises(TargetError, match="1001 files without an address and 9000"):
        collect_folder(tmp_path)
    assert time.process_time() - before < 20
