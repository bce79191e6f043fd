# SPDX-License-Identifier: GPL-2.0-or-later
"""Concatenated regions are a core file; read by parsers that are not ours."""

import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import drgn
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.backends.elf_header_region import Description, describe
from kmemdump.coreimage import read_core as open_core
from kmemdump.formats.elfheader import parse_header_region
from kmemdump.memory.ranges import Region
from kmemdump.opening import open_target
from rigs.reader import VMCOREINFO, read_core

PRSTATUS = struct.pack("<III", 5, 336, 1) + b"CORE\0\0\0\0" + bytes(range(168)) * 2


def concatenate(
    description: Description, regions: list[tuple[Region, bytes]], alignment: int, **kw
) -> bytes:
    """Do what firmware and ``cat`` do."""
    header, vmcoreinfo = describe(
        description, [region for region, _ in regions], alignment=alignment, **kw
    )
    pieces = [header, vmcoreinfo, *(data for _, data in regions)]
    return b"".join(piece + bytes(-len(piece) % alignment) for piece in pieces)


def sample() -> list[tuple[Region, bytes]]:
    return [
        (Region(3, "banner", 0x1001, 7, 0xFFFFFFFF81001001), b"Linux 6"),
        (Region(4, "page", 0x5000, 4096), bytes(range(256)) * 16),
        (Region(5, "word", 0x9000, 8), b"12345678"),
    ]


def without_labels(notes: list[tuple[str, int, bytes]]) -> list[tuple[str, int, bytes]]:
    return [note for note in notes if note[0] != "KMEMDUMP"]


@pytest.mark.parametrize("alignment", [1, 4, 16])
@pytest.mark.parametrize("slots", [None, 3, 199])
def test_concatenation_is_a_core(alignment: int, slots: int | None) -> None:
    direct_map = 0xFFFF888000000000
    description = Description(62, VMCOREINFO, PRSTATUS, direct_map)
    core = concatenate(description, sample(), alignment, slots=slots)
    notes, loads = read_core(core)
    assert without_labels(notes) == [
        ("CORE", 1, bytes(range(168)) * 2),
        ("VMCOREINFO", 0, VMCOREINFO),
    ]
    assert loads == [
        (0x1001, 0xFFFFFFFF81001001, b"Linux 6"),
        (0x5000, direct_map + 0x5000, bytes(range(256)) * 16),
        (0x9000, direct_map + 0x9000, b"12345678"),
    ]


def test_an_unknown_virtual_address_is_none_that_a_kernel_uses() -> None:
    description = Description(183, b"")
    pieces = [(Region(3, "zero", 0, 4), b"zero")]
    notes, loads = read_core(concatenate(description, pieces, 4))
    assert without_labels(notes) == [("VMCOREINFO", 0, b"")]
    assert loads == [(0, 1 << 63, b"zero")]


def test_the_image_has_its_own_name() -> None:
    description = Description(62, b"", b"", 0xFFFF888000000000, (1 << 63, 0x5000, 8192))
    core = concatenate(description, sample(), 4)
    assert [virtual for _, virtual, _ in read_core(core)[1]] == [
        0xFFFFFFFF81001001,  # Which was told.
        1 << 63,
        0xFFFF888000009000,  # Not in it.
    ]


def test_labels() -> None:
    """Files in a folder have a name and a number, and no address."""
    notes, _ = read_core(concatenate(Description(62, b""), sample(), 4, slots=5))
    label = struct.Struct("<I12s")
    ((number, desc),) = (it[1:] for it in notes if it[0] == "KMEMDUMP")
    assert number == 0x4B4D4434
    assert [label.unpack_from(desc, i * 16) for i in range(5)] == [
        (3, b"Kbanner".ljust(12, b"\0")),
        (4, b"Kpage".ljust(12, b"\0")),
        (5, b"Kword".ljust(12, b"\0")),
        (0, bytes(12)),
        (0, bytes(12)),
    ]


def test_when_it_was_marked() -> None:
    description = Description(62, VMCOREINFO, marked=1_795_487_719)
    header, _ = describe(description, [region for region, _ in sample()], slots=9)
    assert parse_header_region(header, "KELF").marked == 1_795_487_719
    later = replace(description, marked=1_795_487_999)
    assert len(describe(later, [], slots=9)[0]) == len(header)
    assert parse_header_region(describe(later, [], slots=9)[0], "").marked is not None
    nobody = describe(Description(62, VMCOREINFO), [], slots=9)[0]
    assert parse_header_region(nobody, "KELF").marked is None


def test_slots_keep_the_header_in_its_place() -> None:
    description = Description(62, VMCOREINFO)
    regions = [Region(i + 3, str(i), i * 16, 16) for i in range(199)]
    sizes = {
        len(describe(description, regions[:n], slots=199, alignment=4)[0])
        for n in range(200)
    }
    assert len(sizes) == 1


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    st.binary(max_size=70),
    st.sampled_from([1, 2, 4, 8, 64]),
    st.none() | st.integers(0, 12),
)
def test_any_sizes(
    pieces: list[bytes], vmcoreinfo: bytes, alignment: int, slots: int | None
) -> None:
    regions = [
        (Region(i + 3, f"r{i}", (i + 1) * 0x1000, len(data)), data)
        for i, data in enumerate(pieces)
    ]
    description = Description(62, vmcoreinfo)
    notes, loads = read_core(concatenate(description, regions, alignment, slots=slots))
    assert without_labels(notes) == [("VMCOREINFO", 0, vmcoreinfo)]
    assert [data for _, _, data in loads] == pieces


def test_drgn_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "core"
    description = Description(62, VMCOREINFO, PRSTATUS, 0xFFFF888000000000)
    path.write_bytes(concatenate(description, sample(), 4, slots=199))
    prog = drgn.Program()
    prog.set_core_dump(path)
    assert prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL
    assert prog["VMCOREINFO"].string_() == VMCOREINFO
    assert prog.read(0x1001, 7, physical=True) == b"Linux 6"
    assert prog.read(0x5000, 4096, physical=True) == bytes(range(256)) * 16
    with pytest.raises(drgn.FaultError):
        prog.read(0, 1, physical=True)


def test_our_reader_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "core"
    description = Description(62, VMCOREINFO, PRSTATUS, 0xFFFF888000000000, marked=1)
    path.write_bytes(concatenate(description, sample(), 4, slots=199))
    target = open_target(str(path))
    assert target.vmcoreinfo().raw == VMCOREINFO
    assert target.registers() == [bytes(range(168)) * 2]
    for region, data in sample():
        assert target.memory.read(region.address, region.size) == data
    target.close()
    with open_core(path) as core:
        assert (core.manifest, core.packed) == (None, None)


@pytest.mark.skipif(not shutil.which("gdb"), reason="needs gdb")
def test_gdb_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "core"
    description = Description(62, VMCOREINFO, PRSTATUS, 0xFFFF888000000000, marked=1)
    path.write_bytes(concatenate(description, sample(), 4, slots=199))
    script = [f"core-file {path}"]
    for address, size in (0xFFFFFFFF81001001, 7), (0xFFFF888000005000, 4096):
        out = tmp_path / str(size)
        script.append(f"dump binary memory {out} {address:#x} {address + size:#x}")
    arguments = [part for text in script for part in ("-ex", text)]
    subprocess.run(["gdb", "-nx", "-batch", *arguments], check=True, timeout=60)
    assert (tmp_path / "7").read_bytes() == b"Linux 6"
    assert (tmp_path / "4096").read_bytes() == bytes(range(256)) * 16


@pytest.mark.skipif(not shutil.which("readelf"), reason="needs readelf (binutils)")
def test_readelf_has_no_complaint(tmp_path: Path) -> None:
    path = tmp_path / "core"
    path.write_bytes(concatenate(Description(62, VMCOREINFO, PRSTATUS), sample(), 4))
    result = subprocess.run(
        ["readelf", "-W", "-h", "-l", "-n", path],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stderr == ""
    assert "VMCOREINFO" in result.stdout
    assert result.stdout.count("  LOAD  ") == 3
