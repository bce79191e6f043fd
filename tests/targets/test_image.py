# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw RAM images: where their bytes were in physical memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError, NotCapturedError, TargetError, UsageError
from kmemdump.memory.ranges import Extent, Range
from kmemdump.opening import open_target
from kmemdump.targets.image import parse_memory_map
from rigs.synthetic import (
    GIB,
    TEXT_MAP,
    UTS,
    page_tables,
    uts,
    vmcoreinfo,
    vmcoreinfo_note,
    write_sparse,
)

INFO = vmcoreinfo()
NOTE = vmcoreinfo_note(INFO)
MIB = 1 << 20


def test_memory_map():
    assert parse_memory_map(
        "0-0xbfffffff@0,0x100000000-0x13fffffff@0xc0000000", 4 * GIB
    ) == [
        Extent(0, 3 * GIB, 0),
        Extent(4 * GIB, GIB, 3 * GIB),
    ]
    assert parse_memory_map("0-0x7fffffff, 0x100000000", 3 * GIB) == [
        Extent(0, 2 * GIB, 0),
        Extent(4 * GIB, GIB, 2 * GIB),
    ]
    assert parse_memory_map("0x40000000", GIB) == [Extent(GIB, GIB, 0)]
    assert parse_memory_map("4096-8191@4096,0-4095@0", 8192) == [
        Extent(0, 4096, 0),
        Extent(4096, 4096, 4096),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "''"),
        ("0-", "'0-', expected FIRST-LAST@OFFSET"),
        ("0x1g", "expected FIRST-LAST@OFFSET"),
        ("0-4096@0", "but the file has 0x1000 bytes"),
        ("5-4", "is 0x0 bytes"),
        ("0@4096", "is 0x0 bytes"),
        ("0xffffffffffffffff", "0x1000 bytes at offset"),
        ("0-9@0,9-10@0", "two ranges at 0x9"),
        pytest.param(",".join(["0-0@0"] * 2000), "more than 1024 ranges", id="many"),
    ],
)
def test_memory_map_refused(text, problem):
    with pytest.raises(UsageError, match=problem):
        parse_memory_map(text, 4096)


@given(st.text("0123456789abcdefx-@,", max_size=60))
def test_any_memory_map(text):
    try:
        extents = parse_memory_map(text, 1 << 20)
    except UsageError:
        return
    for extent in extents:
        assert 0 < extent.size <= (1 << 20) - extent.offset


def test_small_image(tmp_path):
    path = write_sparse(tmp_path / "ram", 64 * MIB, [(0x8000, NOTE), (UTS, uts())])
    target = open_target(str(path))
    assert target.machine == 62
    assert target.memory.ranges == [Range(0, 64 * MIB)]
    assert target.vmcoreinfo().raw == INFO
    assert target.registers() == []
    target.close()


def test_living_kernel_wins(tmp_path):
    old = vmcoreinfo_note(vmcoreinfo("6.1.0-old", phys_base=0x200000))
    path = write_sparse(
        tmp_path / "ram", 64 * MIB, [(0x8000, old), (0xA000, NOTE), (UTS, uts())]
    )
    target = open_target(str(path))
    assert target.vmcoreinfo().osrelease == "6.1.0-test"
    target.close()


def test_two_kernels(tmp_path):
    other = vmcoreinfo("6.1.0-other", phys_base=0x200000)
    pieces = [(0x8000, vmcoreinfo_note(other)), (0xA000, NOTE), (UTS, uts())]
    pieces.append((UTS + 0x200000, uts("6.1.0-other")))
    path = write_sparse(tmp_path / "ram", 64 * MIB, pieces)
    with pytest.raises(TargetError, match="2 kernels in it"):
        open_target(str(path))
    (tmp_path / "info").write_bytes(other)
    target = open_target(str(path), vmcoreinfo=tmp_path / "info")
    assert target.vmcoreinfo().raw == other
    target.close()


@pytest.mark.parametrize(
    ("low", "size"),
    [
        (0x80000000, 2 * GIB + 256 * MIB),
        (0x80000000, 6 * GIB),
        (0xB0000000, 3 * GIB),
        (0xC0000000, 4 * GIB),
        (0xD0000000, 4 * GIB),
        (0xE0000000, 4 * GIB),
        (0xC0000000, 2 * GIB + 512 * MIB),
    ],
)
@pytest.mark.parametrize("high_tables", [False, True])
def test_hole_below_4_gib_is_found(tmp_path, low, size, high_tables):
    high = size > low

    def offset_of(address: int) -> int:
        return address if address < low else address - 4 * GIB + low

    tables = 4 * GIB + 0x7000000 if high and high_tables else 0x7000000
    pieces = page_tables(size, low, offset_of, tables)
    path = write_sparse(tmp_path / "ram", size, [*pieces, (UTS, uts())])
    (tmp_path / "info").write_bytes(INFO)  # Given, since reading it all takes long.
    target = open_target(str(path), vmcoreinfo=tmp_path / "info")
    expected = [Range(0, min(low, size))]
    if high:
        expected.append(Range(4 * GIB, size - low))
    assert target.memory.ranges == expected
    for offset, data in pieces:
        address = offset if offset < low else offset - low + 4 * GIB
        assert target.memory.read(address, len(data)) == data
    target.close()
    path.unlink()


def test_unknown_hole(tmp_path):
    low = 0xA0000000
    pieces = page_tables(3 * GIB, low, lambda address: address, 0x7000000)
    path = write_sparse(tmp_path / "ram", 3 * GIB, [*pieces, (UTS, uts())])
    info = tmp_path / "info"
    info.write_bytes(INFO)
    with pytest.raises(TargetError, match="memory map is not known") as caught:
        open_target(str(path), vmcoreinfo=info)
    assert "--memory-map" in str(caught.value)
    target = open_target(
        str(path), vmcoreinfo=info, memory_map="0-0x9fffffff,0x100000000"
    )
    assert target.memory.ranges == [Range(0, low), Range(4 * GIB, 3 * GIB - low)]
    target.close()
    path.unlink()


def test_given_map_finds_the_kernel(tmp_path):
    path = write_sparse(tmp_path / "ram", 4 * MIB, [(0x8000, NOTE)])
    target = open_target(str(path), memory_map="0x10000000-0x101fffff@0")
    assert "at 0x10008000" in target.vmcoreinfo().source
    with pytest.raises(NotCapturedError):
        target.memory.read(0, 1)
    target.close()
    with pytest.raises(TargetError, match="no VMCOREINFO found in it"):
        open_target(str(path), memory_map="0@0x200000")
    with pytest.raises(UsageError, match="memory map"):
        open_target(str(path), memory_map="0-0xffffffff")


@pytest.mark.parametrize("base", [0x40000000, 0x80000000, 0])
def test_aarch64(tmp_path, base):
    offset = 0x200000 + UTS
    text = vmcoreinfo().replace(b"NUMBER(phys_base)=0\n", b"")
    voffset = TEXT_MAP - base - 0x200000
    text += f"NUMBER(kimage_voffset)=0x{voffset:x}\n".encode()
    path = write_sparse(
        tmp_path / "ram", 64 * MIB, [(0x8000, vmcoreinfo_note(text)), (offset, uts())]
    )
    target = open_target(str(path))
    assert target.machine == 183
    assert target.memory.ranges == [Range(base, 64 * MIB)]
    target.close()


def test_kernel_of_another_architecture(tmp_path):
    text = vmcoreinfo().replace(b"NUMBER(phys_base)=0\n", b"")
    path = write_sparse(tmp_path / "ram", MIB, [(0x8000, vmcoreinfo_note(text))])
    with pytest.raises(FormatError, match="expected x86_64 or aarch64"):
        open_target(str(path))


def test_a_note_of_another_architecture_hides_no_kernel(tmp_path):
    """Any process can have such text in its memory."""
    other = vmcoreinfo().replace(b"NUMBER(phys_base)=0\n", b"")
    pieces = [(0x8000, vmcoreinfo_note(other)), (0xA000, NOTE), (UTS, uts())]
    with open_target(str(write_sparse(tmp_path / "ram", 64 * MIB, pieces))) as target:
        assert target.vmcoreinfo().raw == INFO
