# SPDX-License-Identifier: GPL-2.0-or-later
"""VMCOREINFO: its text, and finding it in memory."""

import os
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.arch.architecture import image_address
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.kernel_search.notes import find_vmcoreinfo, is_present, scan_vmcoreinfo
from kmemdump.memory.physical import FileMemory
from kmemdump.memory.ranges import Extent
from kmemdump.vmcoreinfo import VMCOREINFO_LIMIT, VmcoreInfo
from rigs.synthetic import UTS, uts, vmcoreinfo, vmcoreinfo_note


def parse(text: bytes) -> VmcoreInfo:
    return VmcoreInfo.parse(text, "test")


def memory(path: Path, *pieces: tuple[int, bytes], size: int = 48 << 20) -> FileMemory:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    return FileMemory(os.open(path, os.O_RDONLY), [Extent(0, size, 0)], "ram")


def test_values():
    info = parse(
        b"OSRELEASE=6.12.1-x\nBUILD-ID=00AB\nPAGESIZE=16384\n"
        b"SYMBOL(a)=ffffffff80000001\nSIZE(b)=8\nOFFSET(c.d)=16\nLENGTH(e)=3\n"
        b"NUMBER(f)=-5\nNUMBER(g)=0xffff8000deadbeef\nKERNELOFFSET=13c00000\n"
        b"NUMBER(f)=7\nnonsense\n\nCRASHTIME=1\n\0\0\0"
    )
    assert info.osrelease == "6.12.1-x"
    assert info.build_id == "00ab"
    assert info.page_size == 16384
    assert info.symbol("a") == 0xFFFFFFFF80000001
    assert (info.size("b"), info.offset("c.d"), info.length("e")) == (8, 16, 3)
    assert info.number("f") == 7
    assert info.number("g") == 0xFFFF8000DEADBEEF
    assert info.kernel_offset == 0x13C00000
    assert info.raw.endswith(b"CRASHTIME=1\n")


def test_missing_and_malformed_values():
    info = parse(b"OSRELEASE=6\nSYMBOL(a)=xyz\nNUMBER(b)=1.5\nSIZE(c)=" + b"9" * 99)
    assert info.build_id is None
    with pytest.raises(NotCapturedError, match=r"no line SYMBOL\(z\)="):
        info.symbol("z")
    for call in (
        lambda: info.symbol("a"),
        lambda: info.number("b"),
        lambda: info.size("c"),
    ):
        with pytest.raises(FormatError, match="expected a number"):
            call()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "no line OSRELEASE="),
        (b"OSRELEASE=\n", "no line OSRELEASE="),
        (b"OSRELEASE=6.1\n\xff", r"test\+0xe: byte 0xff"),
        (b"OSRELEASE=6\n" + bytes(VMCOREINFO_LIMIT), "expected at most"),
    ],
)
def test_refused(text, problem):
    with pytest.raises(FormatError, match=problem):
        parse(text)


@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda text: text.encode()))
def test_any_bytes(data):
    for raw in (data, b"OSRELEASE=6.1\n" + data):
        try:
            info = parse(raw)
        except FormatError:
            continue
        assert info.osrelease
        for key in info.values:
            name = key.partition("(")[2].removesuffix(")")
            for read in (info.symbol, info.number, info.size):
                with suppress(FormatError, NotCapturedError):
                    assert -(1 << 63) < read(name) < 1 << 70


def test_image_address():
    x86 = parse(vmcoreinfo(phys_base=0x29E00000))
    assert image_address(x86, 0xFFFFFFFF81000000) == 0x2AE00000
    arm = parse(b"OSRELEASE=6\nNUMBER(kimage_voffset)=0xffff7fffbfe00000\n")
    assert image_address(arm, 0xFFFF800000010000) == 0x40210000
    with pytest.raises(FormatError, match="expected x86_64 or aarch64"):
        image_address(parse(b"OSRELEASE=6\n"), 0)


# A chunk ends at 8 MiB: notes before, over every part of the edge, and behind.
@pytest.mark.parametrize(
    "at", [0, 12345 * 4, *range((8 << 20) - 40, 8 << 20, 4), 9 << 20]
)
def test_finds_note_anywhere(tmp_path, at):
    text = vmcoreinfo()
    ram = memory(tmp_path / "ram", (at, vmcoreinfo_note(text)), size=20 << 20)
    info = find_vmcoreinfo(ram)
    assert info is not None
    assert info.raw == text
    assert f"at {at:#x}" in info.source
    ram.close()


def test_false_notes_are_passed_over(tmp_path):
    text = vmcoreinfo()
    good = vmcoreinfo_note(text)
    wrong_type = bytearray(good)
    wrong_type[8] = 1
    huge = bytearray(good)
    struct.pack_into("<I", huge, 4, 1 << 31)
    ram = memory(
        tmp_path / "ram",
        (0x1000, b"VMCOREINFO\0\0OSRELEASE=6.1\n"),
        (0x2000, bytes(wrong_type)),
        (0x4000, bytes(huge)),
        (0x8000, vmcoreinfo_note(text[: text.index(b"KERNELOFFSET")])),
        (0xA000, good[:200] + bytes(100)),
        (0xC000, vmcoreinfo_note(text.replace(b"PAGESIZE=4096", b"PAGESIZE=1"))),
    )
    assert find_vmcoreinfo(ram) is None
    assert list(scan_vmcoreinfo(ram)) == []
    ram.close()


def test_living_kernel_wins(tmp_path):
    stale = vmcoreinfo("6.1.0-old", phys_base=0x100000)
    fresh = vmcoreinfo(phys_base=0x200000)
    ram = memory(
        tmp_path / "ram",
        (0x1000, vmcoreinfo_note(stale)),
        (0x9000, vmcoreinfo_note(fresh)),
        (0x12000, vmcoreinfo_note(fresh)),
        (UTS + 0x200000, uts()),
    )
    info = find_vmcoreinfo(ram)
    assert info is not None
    assert info.osrelease == "6.1.0-test"
    assert is_present(info, ram)
    assert not is_present(parse(stale), ram)
    ram.close()


def test_lonely_note_needs_no_kernel(tmp_path):
    ram = memory(tmp_path / "ram", (0x1000, vmcoreinfo_note(vmcoreinfo())))
    info = find_vmcoreinfo(ram)
    assert info is not None
    assert not is_present(info, ram)
    ram.close()


def test_several_kernels_are_refused(tmp_path):
    ram = memory(
        tmp_path / "ram",
        (0x1000, vmcoreinfo_note(vmcoreinfo("6.1.0-a"))),
        (0x9000, vmcoreinfo_note(vmcoreinfo("6.1.0-b"))),
    )
    with pytest.raises(FormatError, match="2 different VMCOREINFO notes") as caught:
        find_vmcoreinfo(ram, "some.ram")
    assert "6.1.0-a" in str(caught.value)
    assert "6.1.0-b" in str(caught.value)
    known = find_vmcoreinfo(ram, is_current=lambda note: note.osrelease == "6.1.0-b")
    assert known is not None
    assert known.osrelease == "6.1.0-b"
    ram.close()


def test_unreadable_parts_are_passed_over(tmp_path):
    ram = memory(
        tmp_path / "ram", (0x1000, vmcoreinfo_note(vmcoreinfo())), size=1 << 20
    )
    torn = FileMemory(os.dup(ram._fd), [Extent(0, 64 << 20, 0)], "torn")
    found = find_vmcoreinfo(torn)
    assert found is not None
    assert "at 0x1000" in found.source
    ram.close()
    torn.close()
    with pytest.raises(NotCapturedError):
        torn.read(0, 1)
    assert find_vmcoreinfo(torn) is None
