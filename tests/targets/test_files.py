# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps as targets, and the refusal of files that are something else."""

import lzma
import os
import struct
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kmemdump.errors import (
    FormatError,
    KmemdumpError,
    NotCapturedError,
    TargetError,
    UnsupportedError,
    UsageError,
)
from kmemdump.formats.kdump import parse_kdump
from kmemdump.memory.ranges import Extent, Range, flatten
from kmemdump.opening import open_target
from kmemdump.targets.unsupported import describe_unsupported
from rigs.synthetic import (
    LZO,
    PAGE,
    SNAPPY,
    UTS,
    ZLIB,
    ZSTD,
    elf_core,
    flat,
    kdump,
    lime,
    note,
    prstatus,
    uts,
    vmcoreinfo,
    vmcoreinfo_note,
    write_sparse,
)

INFO = vmcoreinfo()
NOTE = vmcoreinfo_note(INFO)
CPUS = note(b"CORE", 1, prstatus(0)) + note(b"CORE", 1, prstatus(1))


def save(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "dump"
    path.write_bytes(data)
    return str(path)


def test_elf_core(tmp_path):
    data = elf_core([(0x5000, b"b" * 100), (0x1000, b"a" * PAGE)], CPUS + NOTE)
    target = open_target(save(tmp_path, data))
    assert target.machine == 62
    assert target.memory.ranges == [Range(0x1000, PAGE), Range(0x5000, 100)]
    assert target.memory.read(0x1FF0, 16) == b"a" * 16
    assert target.memory.read(0x5000, 100) == b"b" * 100
    for address, size in ((0x5000, 101), (0x2000, 1), (0, 8)):
        with pytest.raises(NotCapturedError):
            target.memory.read(address, size)
    assert target.vmcoreinfo().raw == INFO
    assert target.registers() == [prstatus(0), prstatus(1)]
    target.close()


def test_elf_core_with_two_names_for_a_page(tmp_path):
    page = bytes(range(256)) * 16
    data = elf_core([(0x1000, page), (0x1000, page), (0x1800, page[:0x800])], NOTE)
    target = open_target(save(tmp_path, data))
    assert target.memory.ranges == [Range(0x1000, PAGE)]
    assert target.memory.read(0x1000, PAGE) == page
    target.close()


@given(
    st.lists(
        st.builds(Extent, st.integers(0, 50), st.integers(1, 20), st.integers(0, 999)),
        max_size=12,
    )
)
@example([Extent(31, 8, 9), Extent(39, 1, 17)])
def test_flatten(extents):
    places = {}
    for item in extents:
        for i in range(item.size):
            places.setdefault(item.address + i, set()).add(item.offset + i)
    flattened = [
        (item.address + i, item.offset + i)
        for item in flatten(extents)
        for i in range(item.size)
    ]
    assert [address for address, _ in flattened] == sorted(places)
    assert all(offset in places[address] for address, offset in flattened)


def test_elf_core_that_is_truncated(tmp_path, caplog):
    data = elf_core([(0x1000, bytes(PAGE)), (0x5000, bytes(PAGE))], NOTE)
    path = save(tmp_path, data[:-5000])
    with pytest.raises(FormatError, match=r"is truncated: .* 5000 are missing"):
        open_target(path)
    target = open_target(path, damaged=True)
    assert target.memory.ranges == [Range(0x1000, 2 * PAGE - 5000)]
    assert f"expected {len(data)}; 5000 are missing" in caplog.text
    target.close()


@pytest.mark.parametrize("write", [elf_core, kdump])
def test_a_broken_note_costs_that_note(tmp_path, caplog, write):
    """``crash_notes`` of a dying CPU: the memory and the other notes are good."""
    lying = struct.pack("<III", 5, 0xFFFFFFF0, 1) + b"CORE\0\0\0\0" + prstatus(0)
    notes = lying + note(b"CORE", 1, prstatus(1)) + NOTE
    if write is elf_core:
        data = elf_core([(0x1000, b"a" * PAGE)], notes)
    else:
        data = kdump({1: b"a" * PAGE}, notes=notes)
    with open_target(save(tmp_path, data)) as target:
        assert target.memory.read(PAGE, PAGE) == b"a" * PAGE
        assert target.vmcoreinfo().raw == INFO
        assert target.registers() == [prstatus(1)]
    assert "a desc of 4294967280 bytes" in caplog.text


def test_elf_core_for_aarch64(tmp_path):
    notes = note(b"CORE", 1, prstatus(0, 392)) + NOTE
    target = open_target(save(tmp_path, elf_core([(1 << 30, b"x")], notes, 183)))
    assert (target.machine, len(target.registers())) == (183, 1)
    target.close()


def test_vmcoreinfo_in_the_memory_of_a_core(tmp_path):
    data = elf_core([(0x1000, bytes(0x200) + NOTE)], CPUS)
    target = open_target(save(tmp_path, data))
    assert "VMCOREINFO at 0x1200" in target.vmcoreinfo().source
    target.close()


def test_vmcoreinfo_that_a_person_gives(tmp_path):
    given_file = tmp_path / "info"
    given_file.write_bytes(vmcoreinfo("6.6.6-given"))
    spec = save(tmp_path, elf_core([(0x1000, b"x")], NOTE))
    target = open_target(spec, vmcoreinfo=given_file)
    assert target.vmcoreinfo().osrelease == "6.6.6-given"
    target.close()
    given_file.write_bytes(b"\x7fELF")
    with pytest.raises(FormatError, match="info"):
        open_target(spec, vmcoreinfo=given_file)
    with pytest.raises(TargetError, match="nothing: No such file"):
        open_target(spec, vmcoreinfo=tmp_path / "nothing")


def test_no_vmcoreinfo(tmp_path):
    target = open_target(save(tmp_path, elf_core([(0x1000, bytes(PAGE))], CPUS)))
    with pytest.raises(TargetError, match="no VMCOREINFO in the notes nor"):
        target.vmcoreinfo()
    target.close()


def test_broken_vmcoreinfo_note_is_passed_over(tmp_path, caplog):
    data = elf_core([(0x1000, NOTE)], note(b"VMCOREINFO", 0, b"\xff"))
    target = open_target(save(tmp_path, data))
    assert target.vmcoreinfo().raw == INFO
    assert "byte 0xff" in caplog.text
    target.close()


def test_lime(tmp_path):
    data = lime([(0x100000, NOTE), (0x1000, b"abc")])
    target = open_target(save(tmp_path, data))
    assert target.machine == 62
    assert target.memory.ranges == [Range(0x1000, 3), Range(0x100000, len(NOTE))]
    assert target.memory.read(0x1001, 2) == b"bc"
    assert target.registers() == []
    target.close()
    with pytest.raises(TargetError, match="no VMCOREINFO"):
        open_target(save(tmp_path, lime([(0, bytes(100))])))


PAGES = {
    frame: (f"page {frame} ".encode() * 600)[:2048].ljust(PAGE, b"\0")
    for frame in (1, 2, 3, 77, 0x100005)
}


@pytest.mark.parametrize("kind", [0, ZLIB, LZO, SNAPPY, ZSTD])
@pytest.mark.parametrize("flattened", [False, True])
def test_kdump(tmp_path, kind, flattened):
    data = kdump(PAGES, kind=kind, info=INFO, notes=CPUS + NOTE)
    if flattened:
        cuts = range(0, len(data), 1000)
        data = flat((at, data[at : at + 1000]) for at in sorted(cuts, key=lambda i: -i))
    target = open_target(save(tmp_path, data))
    assert target.machine == 62
    assert target.memory.ranges == [
        Range(PAGE, 3 * PAGE),
        Range(77 * PAGE, PAGE),
        Range(0x100005 * PAGE, PAGE),
    ]
    assert target.memory.read(PAGE, 3 * PAGE) == PAGES[1] + PAGES[2] + PAGES[3]
    assert target.memory.read(0x100005 * PAGE + 99, 9) == PAGES[0x100005][99:108]
    for address in (0, 4 * PAGE - 1, 1 << 52):
        with pytest.raises(NotCapturedError, match="does not hold"):
            target.memory.read(address, 2)
    assert target.vmcoreinfo().raw == INFO
    assert target.registers() == [prstatus(0), prstatus(1)]
    target.close()


def test_kdump_with_random_pages(tmp_path):
    pages = {frame: os.urandom(PAGE) for frame in range(0, 600, 3)}
    target = open_target(save(tmp_path, kdump(pages, info=INFO)))
    for frame, page in pages.items():
        assert target.memory.read(frame * PAGE, PAGE) == page
    target.close()


def test_kdump_without_vmcoreinfo_in_its_header(tmp_path):
    pages = {7: NOTE.ljust(PAGE, b"\0")}
    target = open_target(save(tmp_path, kdump(pages, notes=CPUS)))
    assert target.vmcoreinfo().raw == INFO
    target.close()


def test_kdump_with_pages_that_are_wrong(tmp_path):
    good = kdump({1: PAGES[1]}, info=INFO)
    at = len(good) - len(zlib.compress(PAGES[1]))
    short = zlib.compress(b"short").ljust(len(good) - at, b"\0")
    for data, problem in (
        (good[:at] + b"x" * 8 + good[at + 8 :], "incorrect header check"),
        (good[:-1], "the file ends"),
        (good[:at] + short, "5 bytes in it"),
    ):
        target = open_target(save(tmp_path, data), damaged=True)
        with pytest.raises(NotCapturedError, match=problem):
            target.memory.read(PAGE, 1)
        target.close()


@pytest.mark.parametrize("flattened", [False, True])
def test_kdump_that_drgn_refuses(tmp_path, flattened):
    """It is refused when it is opened, not in the middle of a report."""
    data = kdump(PAGES, kind=LZO)
    hint = (
        "reassemble it first, with makedumpfile -R"
        if flattened
        else ("convert it with makedumpfile -c")
    )
    with pytest.raises(UnsupportedError, match=hint):
        open_target(save(tmp_path, flat([(0, data)]) if flattened else data))


def test_kdump_that_is_marked_incomplete(tmp_path, caplog):
    """makedumpfile's disk was full: what it wrote is there, and it says so."""
    data = bytearray(kdump(PAGES, info=INFO, notes=CPUS + NOTE, status=9))
    with open_target(save(tmp_path, bytes(data))) as target:
        assert target.memory.read(0x100005 * PAGE, PAGE) == PAGES[0x100005]
    assert "marked incomplete" in caplog.text
    assert "0 of 5 pages are missing" in caplog.text
    head = parse_kdump(
        lambda at, count: bytes(data[at : at + count]), len(data), "dump"
    )
    at = head.descriptors + 24 * 3
    data[at : at + 48] = bytes(48)
    caplog.clear()
    with open_target(save(tmp_path, bytes(data))) as target:
        assert target.memory.ranges == [Range(PAGE, 3 * PAGE)]
        assert target.memory.read(3 * PAGE, PAGE) == PAGES[3]
        with pytest.raises(NotCapturedError, match="does not hold 0x4d000"):
            target.memory.read(77 * PAGE, 1)
    assert "2 of 5 pages are missing" in caplog.text
    with open_target(save(tmp_path, bytes(data[: at - 24]))) as target:
        assert target.memory.ranges == [Range(PAGE, 2 * PAGE)]


@pytest.mark.parametrize("tib", [12, 70])
def test_kdump_of_a_machine_with_ram_at_high_addresses(tmp_path, tib):
    """Arm servers have RAM from 8 TiB on, and at 64 TiB: nearly all bits are zeros."""
    high = (tib << 40) // PAGE - 3
    pages = {7: PAGES[2], high: PAGES[3]}
    frames = (tib << 40) // PAGE
    half = frames // 8
    start = 2 * PAGE + 2 * half
    head = bytearray(kdump({0: PAGES[1]}, info=INFO, notes=NOTE)[: 2 * PAGE])
    struct.pack_into("<I", head, 436, 2 * half // PAGE)
    struct.pack_into("<Q", head, PAGE + 96, frames)
    pieces = [(0, bytes(head))]
    for i, (frame, page) in enumerate(pages.items()):
        pieces.append((2 * PAGE + half + frame // 8, bytes([1 << frame % 8])))
        at = start + 48 + i * PAGE
        pieces.append((start + 24 * i, struct.pack("<qIIQ", at, PAGE, 0, 0)))
        pieces.append((at, page))
    path = write_sparse(tmp_path / "dump", start + 48 + 2 * PAGE, pieces)
    with open_target(str(path)) as target:
        assert list(target.memory.ranges) == [
            Range(frame * PAGE, PAGE) for frame in pages
        ]
        assert target.memory.read(high * PAGE + 5, 9) == PAGES[3][5:14]
        assert target.memory.read(7 * PAGE, PAGE) == PAGES[2]


def elf(class_: int = 2, order: int = 1, type_: int = 4, machine: int = 62) -> bytes:
    data = bytearray(elf_core([(0x1000, b"x")], NOTE, machine))
    data[4:6] = bytes([class_, order])
    struct.pack_into("<H" if order == 1 else ">H", data, 16, type_)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty"),
        (b"\x7fELF", "is a truncated ELF file"),
        (elf(class_=1), "is a 32-bit ELF file"),
        (elf(order=2), "is a big-endian ELF file"),
        (elf(type_=1), "ELF object"),
        (elf(type_=2), r"ELF executable.*\na vmlinux is passed with --vmlinux"),
        (elf(type_=9), "ELF file of type 9"),
        (elf(machine=40), "core of ELF machine 40"),
        (elf_core([(0, b"x")], note(b"CORE", 0x46494C45, b"")), "core of a process"),
        (elf_core([(0, b"x")], note(b"CORE", 6, b"")), "core of a process"),
        (elf_core([], NOTE), "holds no physical memory"),
        (elf_core([((1 << 64) - 2, b"xxx")], NOTE), "wrap around"),
        (zlib.compress(b"x", wbits=31), "is compressed with gzip.*gunzip -k FILE"),
        (lzma.compress(b"x"), "is compressed with xz"),
        (b"PAGEDU64" + bytes(5000), "crash dump of Windows"),
        (b"QFI\xfb" + bytes(5000), "a disk image .qcow2."),
        (b"\xd2\xbe\xd2\xbe" + bytes(5000), r"VMware VM.*\.vmem.*vmss2core -N6"),
        (bytes(4086) + b"SWAPSPACE2", "swap space"),
        (bytes(0x202) + b"HdrS", "a compressed kernel"),
        (INFO, "pass it with --vmcoreinfo"),
        ("Läuft nicht.\n".encode() * 1000, "is text"),
        (bytes(1 << 20), "no VMCOREINFO found in it"),
        (b"KDUMP   ", "the header should be"),
        (kdump(PAGES, machine=b"i686"), "utsname.machine: architecture i686 is not"),
        (b"makedumpfile", "is text"),
        (b"makedumpfile" + bytes(9), "type 0, version 0|starts with"),
        (b"EMiL", "expected a LiME header"),
    ],
    ids=lambda it: "" if isinstance(it, bytes) else it,  # A megabyte is no name.
)
def test_refused(tmp_path, data, problem):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KmemdumpError, match=f"(?s)dump.*{problem}") as caught:
        open_target(save(tmp_path, data))
    assert caught.value.exit_code == 3
    assert len(os.listdir("/proc/self/fd")) == before


# Each begins as the program that writes it begins: see the sources of libvirt
# (qemu_saveimage.h), xl (xl.h), libxl and libxc (…_sr_stream_format.h), QEMU
# (migration/savevm.c), VirtualBox (SSM.cpp), openvmm (hvs_file), crash (sadump.h,
# vmware_vmss.h, lkcd_vmdump_v1.h, xendump.h), AVML (image.rs) and systemd
# (journal-def.h).
SAVED = {
    b"LibvirtQemudSave\2\0\0\0": "virsh restore FILE --paused, then virsh dump",
    b"LibvirtQemudPart\2\0\0\0": "not whole.*virsh dump --memory-only",
    b"QEVM\0\0\0\3": "migration stream of QEMU.*-incoming 'exec:cat FILE'",
    b"Xen saved domain, xl format\n \0 \r": "that xl saved.*xl restore -p FILE",
    b"\xff" * 8 + b"XENF\0\0\0\3": "stream of Xen.*xl restore",
    bytes(512) + b"sadump\0\0": r"\(sadump\).*makedumpfile -c",
    bytes(4096) + b"sadump\0\0": r"\(sadump\).*makedumpfile -c",
    b"LibxlFmt\0\0\0\2": "stream of Xen.*xl restore",
    b"\x7fVirtualBox SavedState V2.0\n": "VBoxManage debugvm VM dumpvmcore",
    struct.pack("<I", 0x01282014): r"Hyper-V \(.vmrs\).*LiveCloudKd",
    struct.pack("<I", 0xBED2BED2): "vmss2core -N6 FILE",
    struct.pack("<I", 0xBAD1BAD1): "vmss2core -N6 FILE",
    b"AVML\2\0\0\0": "avml-convert --format lime FILE NEW",
    struct.pack("<II", 0x75646173, 0x706D): r"\(sadump\).*makedumpfile -c",
    struct.pack("<Q", 0xA8190173618F23ED): "a dump of LKCD",
    struct.pack("<I", 0xF00FEBED): "a core of Xen.*crash VMLINUX FILE",
    b"LPKSHHRH": "journalctl --file FILE -k -o export",
}


def test_what_lime_compressed(tmp_path):
    """As its deflate.c does: with zlib, and a window of 2 KiB."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 11, 5)
    data = packer.compress(lime([(0x1000, os.urandom(20000))])) + packer.flush()
    with pytest.raises(TargetError, match=r"(?s)dump: is a LiME file.*unpigz <FILE"):
        open_target(save(tmp_path, data))
    assert describe_unsupported(b"\x38" + os.urandom(8191)) is None


@pytest.mark.parametrize("head", SAVED)
def test_a_foreign_format_is_named_with_what_converts_it(tmp_path, head):
    data = head + os.urandom(20000)
    with pytest.raises(TargetError, match=f"(?s)dump: is .*{SAVED[head]}"):
        open_target(save(tmp_path, data))


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, problem in (
        (tmp_path, "no md_"),
        (tmp_path / "fifo", "is a FIFO"),
        ("/dev/zero", "is a character device"),
        (tmp_path / "nothing", "No such file or directory"),
        ("a\0b", "embedded null byte"),
    ):
        with pytest.raises(TargetError, match=problem):
            open_target(str(path))
    with pytest.raises(UsageError, match="no target"):
        open_target("")
    with pytest.raises(TargetError, match="an ELF"):
        open_target(sys.executable)


def test_memory_map_is_for_raw_images_only(tmp_path):
    with pytest.raises(UsageError, match="not a raw RAM image"):
        open_target(save(tmp_path, elf_core([(0, b"x")], NOTE)), memory_map="0")


@given(st.binary(max_size=5000))
def test_description_of_anything(data):
    text = describe_unsupported(data)
    assert text is None or text.startswith("is ")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.sampled_from(
        [
            b"",
            elf_core([(0x1000, b"x" * 99)], NOTE),
            kdump(PAGES, info=INFO),
            flat([(0, kdump({1: PAGES[1]}, info=INFO))]),
            lime([(0x1000, NOTE)]),
        ]
    ),
    st.integers(0, 9000),
    st.binary(max_size=100),
)
def test_damaged_files(tmp_path, data, at, damage):
    """Whatever is opened answers or fails with an error of ours."""
    try:
        target = open_target(
            save(tmp_path, data[:at] + damage + data[at + len(damage) :])
        )
    except KmemdumpError:
        return
    try:
        target.vmcoreinfo()
        target.registers()
        for item in target.memory.ranges[:3]:
            target.memory.read(item.start, min(item.size, 9000))
    except KmemdumpError:
        pass
    finally:
        target.close()


def test_uts_is_where_it_should_be():
    assert len(uts()) == 390
    assert UTS % 16 == 0
