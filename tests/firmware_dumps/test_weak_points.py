# SPDX-License-Identifier: GPL-2.0-or-later
"""
Where qdl's own assembly of a minidump goes wrong, and collecting does not.

:func:`qdl` does what qdl 2.7's ``sahara_build_minidump_elf()`` does, as far as it
matters here; each test shows that the point is a real one before it shows that ours
holds.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kmemdump.collect.write import write_collected
from kmemdump.errors import NotCapturedError
from kmemdump.firmware_dumps.assemble import FirmwareDump
from kmemdump.firmware_dumps.folder import collect_folder
from kmemdump.firmware_dumps.target import DumpTarget
from kmemdump.formats.sahara import DeviceRow
from kmemdump.formats.sahara_device import Device
from kmemdump.memory.ranges import Range
from kmemdump.opening import open_target
from rigs.firmware_dumps import check, log, rawdump
from rigs.phone import LOG, Phone, Row, in_image
from rigs.sahara_device import Serve, fetch, reader, rows_of, serving
from rigs.writers import put


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with serving(tmp_path) as serve:
        yield serve


BANNER = in_image(0x4100)["address"]

Loads = list[tuple[int, int, int]]


def loads_of(data: bytes) -> Loads:
    """Return offset, address and size of each PT_LOAD, as the file has them."""
    start, size, count = struct.unpack_from("<Q14xHH", data, 32)
    assert size == 56
    headers = [
        struct.unpack_from("<IIQQQQ", data, start + 56 * i) for i in range(count)
    ]
    return [(it[2], it[4], it[5]) for it in headers if it[0] == 1]


def qdl(table: Sequence[Row], *, lost: Sequence[str] = ()) -> bytes | None:
    """
    Assemble as qdl does.

    :param table: What the device offers, in its order.
    :param lost: Names of rows whose file cannot be opened.
    """
    header = next((row for row in table if row.name.startswith("KELF")), None)
    if header is None:
        return None
    loads = loads_of(header.padded)
    addresses = {address for _, address, _ in loads}
    info = next(
        row for row in table if row is not header and row.address not in addresses
    )
    output = header.padded + info.padded
    for _, address, size in loads:
        row = next((row for row in table if row.address == address), None)
        if row is not None and row.name not in lost:
            output += row.padded.ljust(size, b"\0")
    return output


def wrong(output: bytes | None, phone: Phone) -> set[int]:
    """Return the addresses where a core has something else than the phone had."""
    assert output is not None
    there = {
        address: output[offset : offset + size]
        for offset, address, size in loads_of(output)
    }
    return {
        address
        for address, data in phone.expected.items()
        if there.get(address, b"")[: len(data)] != data
    }


def collect(path: Path, rows: Sequence[Row]) -> FirmwareDump:
    return rawdump(Phone().image(path, rows))


@pytest.fixture
def phone() -> Phone:
    phone = Phone.with_log()
    assert wrong(qdl(phone.table), phone) == set()  # It does work, mostly.
    return phone


def without(rows: Sequence[Row], id: int) -> list[Row]:
    return [row for row in rows if row.id != id]


def test_offsets_need_not_be_contiguous(tmp_path: Path, phone: Phone) -> None:
    phone.scrambled = True
    assert len(wrong(qdl(phone.table), phone)) == len(phone.rows)
    collected = collect(tmp_path / "image", phone.table[::-1])
    check(collected, phone)
    assert log(DumpTarget(collected)) == LOG


def test_region_that_is_not_in_the_table(tmp_path: Path, phone: Phone) -> None:
    rows = without(phone.table, 11)
    assert len(wrong(qdl(rows), phone)) > 1
    collected = collect(tmp_path / "image", rows)
    (missing,) = collected.missing
    assert missing.range == Range(BANNER, 24)
    assert log(DumpTarget(collected)) == LOG
    with pytest.raises(NotCapturedError):
        collected.memory.read(BANNER, 1)


def test_file_that_cannot_be_opened(tmp_path: Path, phone: Phone) -> None:
    assert len(wrong(qdl(phone.table, lost=["Klinux_ba"]), phone)) > 1
    folder = phone.folder(tmp_path / "dump", listed=True)
    (folder / "md_Klinux_ba11.BIN").unlink()
    (folder / "md_Klinux_ba11.BIN").symlink_to("nowhere")
    collected = collect_folder(folder)
    assert [it.name for it in collected.missing] == ["Klinux_ba11"]
    assert log(DumpTarget(collected)) == LOG


def test_short_header_is_not_padded(tmp_path: Path, phone: Phone) -> None:
    elf = replace(phone.elf, data=phone.elf.data[:12000])
    rows = [elf, *phone.table[1:]]
    assert len(wrong(qdl(rows), phone)) >= 8
    collected = collect(tmp_path / "image", rows)
    check(collected, phone)
    assert log(DumpTarget(collected)) == LOG


def test_short_vmcoreinfo_is_not_padded(tmp_path: Path, phone: Phone) -> None:
    info = replace(phone.info, data=phone.info.data.rstrip(b"\0")[:-8])
    rows = [phone.elf, info, *phone.rows]
    assert len(wrong(qdl(rows), phone)) == len(phone.rows)
    collected = collect(tmp_path / "image", rows)
    check(collected, phone)
    assert log(DumpTarget(collected)) == LOG


def test_stray_region_is_no_vmcoreinfo(tmp_path: Path, phone: Phone) -> None:
    stray = Row("Kstray", 99, 0x80360000, b"something else")
    elf, *rest = phone.table
    rows = [elf, stray, *rest]
    output = qdl(rows)
    assert output is not None
    assert b"OSRELEASE=" not in output
    assert len(wrong(output, phone)) == len(phone.rows)
    collected = collect(tmp_path / "image", rows)
    check(collected, phone)
    assert collected.memory.read(stray.address, 14) == stray.data
    assert log(DumpTarget(collected)) == LOG


def test_alias_is_not_the_first_of_its_address(tmp_path: Path, phone: Phone) -> None:
    """Two rows have one address: the first one is the beginning of the other."""
    part = Row("Kpart", 60, BANNER, b"Linux ve")
    rows = [*phone.table[:2], part, *phone.table[2:]]
    assert BANNER in wrong(qdl(rows), phone)
    collected = collect(tmp_path / "a", rows)
    check(collected, phone)
    assert collected.problems == ()
    rows[2] = Row("Kpart", 60, BANNER, b"Lunix ve")
    (problem,) = collect(tmp_path / "b", rows).problems
    assert problem.startswith(f"Klinux_ba and Kpart disagree from {BANNER + 1:#x} on")


def test_short_file_is_a_hole_and_no_zeros(tmp_path: Path, phone: Phone) -> None:
    rows = [
        replace(row, data=b"Linux ve") if row.id == 11 else row for row in phone.table
    ]
    output = qdl(rows)
    assert output is not None
    (offset,) = (at for at, address, _ in loads_of(output) if address == BANNER)
    assert output[offset : offset + 24] == b"Linux ve" + bytes(16)  # As if it were so.
    collected = collect(tmp_path / "image", [*without(rows, 11)])
    folder = phone.folder(tmp_path / "dump", listed=True)
    (folder / "md_Klinux_ba11.BIN").write_bytes(b"Linux ve")
    collected = collect_folder(folder)
    assert "Klinux_ba11 is truncated: 8 of 24 bytes are there" in collected.problems
    core = tmp_path / "core"
    assert write_collected(core, DumpTarget(collected)) == [Range(BANNER + 8, 16)]
    target = open_target(str(core))
    assert target.memory.read(BANNER, 8) == b"Linux ve"
    with pytest.raises(NotCapturedError):
        target.memory.read(BANNER + 8, 1)
    assert log(target) == LOG


def test_long_file_is_cut(tmp_path: Path, phone: Phone) -> None:
    rows = [
        replace(row, data=row.data + b"X" * 52) if row.id == 10 else row
        for row in phone.table
    ]
    assert len(wrong(qdl(rows), phone)) > 1
    folder = phone.folder(tmp_path / "dump", listed=True)
    path = folder / "md_Kjiffies_10.BIN"
    path.write_bytes(path.read_bytes() + b"X" * 52)
    collected = collect_folder(folder)
    check(collected, phone)
    assert "has 60 bytes, expected 8" in collected.problems[0]


def test_no_header_is_not_nothing(tmp_path: Path, phone: Phone) -> None:
    phone.header = False
    assert qdl(phone.table) is None
    collected = collect(tmp_path / "image", phone.table)
    assert collected.problems == ("there is no ELF header region (KELF)",)
    assert log(DumpTarget(collected)) == LOG


def test_header_that_was_not_downloaded(
    tmp_path: Path, phone: Phone, serve: Serve
) -> None:
    """A filter leaves it out; addresses are in the list beside the files."""

    def wanted(rows: Sequence[DeviceRow]) -> list[DeviceRow]:
        return [row for row in rows if "KELF" not in row.file_name]

    device = Device(rows_of(phone), reader(phone))
    fetch(serve(device), tmp_path / "dump", wanted=wanted)
    assert log(DumpTarget(collect_folder(tmp_path / "dump"))) == LOG


@pytest.mark.parametrize(("at", "value"), [(4, 1), (5, 2), (18, 0xB7)])
def test_machine_and_byte_order_are_checked(
    tmp_path: Path, phone: Phone, at: int, value: int
) -> None:
    data = bytearray(phone.elf.data)
    data[at] = value
    rows = [replace(phone.elf, data=bytes(data)), *phone.table[1:]]
    output = qdl(rows)
    assert output is not None
    assert output[at] == value  # Taken for good.
    collected = collect(tmp_path / "image", rows)
    refused = any("expected 2, 1, 1 (64-bit" in it for it in collected.problems)
    assert refused == (at != 18)
    assert collected.machine == 183


def test_another_machines_header_is_told(tmp_path: Path, phone: Phone) -> None:
    data = bytearray(phone.elf.data)
    put(data, 18, 2, 62)
    other = replace(phone.elf, name="KELF2", address=0x80368000, data=bytes(data))
    collected = collect(tmp_path / "image", [phone.elf, other, *phone.table[1:]])
    assert "KELF2 is of another machine (62)" in collected.problems
    assert collected.machine == 183


def test_banner_of_the_downstream_header(tmp_path: Path) -> None:
    """Its PT_LOAD lies in the header itself, and is no region that is missing."""
    phone = Phone.with_log(downstream=True)
    collected = collect(tmp_path / "image", phone.table)
    assert (collected.problems, collected.missing) == ((), ())
    check(collected, phone)


def test_files_can_be_assembled_later(tmp_path: Path, phone: Phone) -> None:
    """qdl assembles while it downloads; edl, and older versions of qdl, never do."""
    collected = collect_folder(phone.folder(tmp_path / "dump"))
    check(collected, phone)
    assert (collected.problems, collected.missing) == ((), ())


def test_device_of_the_32_bit_form(tmp_path: Path, phone: Phone, serve: Serve) -> None:
    """qdl answers MEM_DEBUG with nothing and runs into its timeout."""
    device = Device(rows_of(phone), reader(phone), wide=False)
    fetch(serve(device), tmp_path / "dump")
    assert log(DumpTarget(collect_folder(tmp_path / "dump"))) == LOG


@pytest.mark.parametrize("name", ["", "a/b.BIN", "a\\b.BIN"])
def test_strange_name_stops_nothing(
    tmp_path: Path, phone: Phone, serve: Serve, name: str
) -> None:
    """qdl downloads nothing behind it."""
    rows = rows_of(phone)
    rows[2] = replace(rows[2], file_name=name)
    fetch(serve(Device(rows, reader(phone))), tmp_path / "dump")
    collected = collect_folder(tmp_path / "dump")
    check(collected, phone)
    assert collected.missing == ()
