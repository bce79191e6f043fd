# SPDX-License-Identifier: GPL-2.0-or-later
"""What firmware left is put together by address, in whatever shape it comes."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from drgn import FaultError

from kmemdump.collect.source import Options, open_source
from kmemdump.collect.write import write_collected
from kmemdump.errors import KmemdumpError, NotCapturedError, TargetError
from kmemdump.firmware_dumps.folder import collect_folder
from kmemdump.firmware_dumps.minidump_table import collect_table
from kmemdump.firmware_dumps.target import DumpTarget
from kmemdump.opening import open_target
from rigs.firmware_dumps import check, log, rawdump
from rigs.machine import SMEM
from rigs.phone import LOG, MESSAGES, Phone, Row, in_image
from rigs.writers.kernel_memory import RELEASE, SyntheticKernel


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("downstream", [False, True])
@pytest.mark.parametrize("shape", ["listed", "files", "rawdump", "table"])
def test_log_from_vmcoreinfo_alone(
    tmp_path: Path, shape: str, downstream: bool, dynamic: bool, wrapped: bool
) -> None:
    phone = Phone.with_log(dynamic=dynamic, wrapped=wrapped, downstream=downstream)
    if shape == "table":
        target = DumpTarget(collect_table(phone.machine(), SMEM))
    elif shape == "rawdump":
        target = open_target(str(phone.image(tmp_path / "image")))
    else:
        folder = phone.folder(tmp_path / "dump", listed=shape == "listed")
        target = open_target(str(folder))
    assert target.machine == 183
    assert log(target) == LOG
    target.close()


def test_wrapped_record_really_wraps() -> None:
    text = next(row for row in Phone.with_log(wrapped=True).rows if row.id == 25)
    start = text.data.index(MESSAGES[0].encode())
    assert text.data.index(MESSAGES[1].encode()) < start


def test_all_shapes_are_the_same(tmp_path: Path) -> None:
    phone = Phone.with_log()
    shapes = [
        collect_folder(phone.folder(tmp_path / "dump", listed=True)),
        rawdump(phone.image(tmp_path / "image")),
        collect_table(phone.machine(), SMEM),
    ]
    for collected in shapes:
        check(collected, phone)
        assert collected.missing == ()
        names = [it.name.rstrip("012") for it in collected.regions if it.name[0] == "K"]
        assert names[:3] == ["Kprb", "Kprintk_r", "Kprintk_r"]
    assert [it.problems for it in shapes] == [(), (), ()]
    for i, collected in enumerate(shapes):
        core = tmp_path / f"core{i}"
        target = DumpTarget(collected._replace(source="dump"))
        assert write_collected(core, target) == []
        assert log(open_target(str(core))) == LOG
        target.close()


def test_without_a_header(tmp_path: Path) -> None:
    """VMCOREINFO tells where the image and the linear map are."""
    for dynamic in (False, True):
        phone = Phone.with_log(header=False, dynamic=dynamic)
        name = f"dump{dynamic}"
        target = open_target(str(phone.folder(tmp_path / name, listed=True)))
        assert "no ELF header region" in target.dump.problems[0]
        assert log(target) == LOG


def test_nothing_to_place(tmp_path: Path) -> None:
    phone = Phone([Row("Ka", 3, 0x80300000, b"data")], header=False)
    with pytest.raises(TargetError, match="none of 2 fragments has an address"):
        collect_folder(phone.folder(tmp_path / "dump"))
    with pytest.raises(TargetError, match="no md_"):
        collect_folder(tmp_path)
    with pytest.raises(TargetError, match="No such file"):
        collect_folder(tmp_path / "none")


def test_files_without_addresses(tmp_path: Path) -> None:
    """Placed by VMCOREINFO's symbols and by sizes; never by order."""
    phone = Phone.with_log()
    folder = phone.folder(tmp_path / "dump")
    collected = collect_folder(folder)
    # prb and jiffies have 8 bytes each: one is known by its symbol, the other is left.
    for row in phone.rows:
        if row.name != "Kprintk_r":
            assert collected.memory.read(row.address, len(row.data)) == row.data
    # The two log rings have one name and one size: their contents tell.
    assert collected.missing == ()


def test_ambiguous_files_are_not_placed(tmp_path: Path) -> None:
    rows = [Row("Kone", 50, 0x80300000, b"1234"), Row("Ktwo", 51, 0x80300010, b"5678")]
    phone = Phone([*rows, Row("Kbig", 52, 0x80300100, b"b" * 100)])
    collected = collect_folder(phone.folder(tmp_path / "dump"))
    assert [str(it.range) for it in collected.missing] == [
        "0x80300000-0x80300004",
        "0x80300010-0x80300014",
    ]
    assert [line.split(" is ")[0] for line in collected.problems] == [
        "Kone50 (4 bytes)",
        "Ktwo51 (4 bytes)",
    ]
    assert collected.memory.read(0x80300100, 100) == b"b" * 100


def test_load_cmm(tmp_path: Path) -> None:
    phone = Phone.with_log()
    folder = phone.folder(tmp_path / "dump")
    (folder / "load.cmm").write_text(
        "".join(
            f"d.load.binary md_{row.name}{row.id}.BIN 0x{row.address:x} /noclear\n"
            for row in phone.table
        )
    )
    collected = collect_folder(folder)
    check(collected, phone)
    assert collected.problems == ()


def all_memory(folder: Path, *, listed: bool = True) -> SyntheticKernel:
    """A folder of all memory, without a table of regions."""
    kernel = SyntheticKernel("aarch64", ram=0x80000000)
    folder.mkdir()
    half = 9 << 20  # The kernel is in the first file.
    (folder / "DDRCS0_0.BIN").write_bytes(kernel.memory[:half])
    (folder / "DDRCS0_1.BIN").write_bytes(kernel.memory[half:])
    lines = [
        "if OS.FILE(DDRCS0_0.BIN)",
        "(",
        f"  d.load.binary ddrcs0_0.bin {kernel.ram:#x} /noclear",
        ")",
        f"d.load.binary DDRCS0_1.BIN {kernel.ram + half:#x} /noclear",
    ]
    if listed:
        (folder / "load.cmm").write_text("\n".join(lines) + "\n")
    return kernel


def test_a_dump_of_all_memory_needs_no_header(tmp_path: Path) -> None:
    kernel = all_memory(tmp_path / "dump")
    collected = collect_folder(tmp_path / "dump")
    assert collected.warnings == []
    held = collected.memory.read(kernel.ram, len(kernel.memory))
    assert held == kernel.memory
    with open_target(str(tmp_path / "dump")) as target:
        assert target.vmcoreinfo().osrelease == RELEASE


def test_a_dump_of_all_memory_without_its_list(tmp_path: Path) -> None:
    """The kernel in one file proves that file's address."""
    kernel = all_memory(tmp_path / "dump", listed=False)
    with open_target(str(tmp_path / "dump")) as target:
        assert target.vmcoreinfo().osrelease == RELEASE
        size = 9 << 20
        assert target.memory.read(kernel.ram, size) == kernel.memory[:size]
        with pytest.raises(NotCapturedError):
            target.memory.read(kernel.ram + size, 1)
        assert target.dump.problems == (
            "DDRCS0_1.BIN has no address, and nothing proves one: it is left out",
        )


def test_a_dump_of_all_memory_without_its_list_and_kernel(tmp_path: Path) -> None:
    all_memory(tmp_path / "dump", listed=False)
    (tmp_path / "dump" / "DDRCS0_0.BIN").write_bytes(bytes(1 << 20))
    with pytest.raises(TargetError) as caught:
        open_target(str(tmp_path / "dump"))
    problem = str(caught.value)
    assert "DDRCS0_0.BIN and 1 more files of all memory have no addresses" in problem
    assert "expected them in dump_info.txt or load.cmm" in problem


_ENTRIES = (0x3 | 0x90000000).to_bytes(8, "little") * 512
TABLE = Row("Kswapper_", 13, data=_ENTRIES, **in_image(0x30000))
"""The top of the page table; what is below is not in the dump."""


@pytest.mark.parametrize("more", [[], [TABLE]], ids=["", "top table"])
def test_an_elf_core_made_of_the_files(tmp_path: Path, more: list[Row]) -> None:
    """qdl's minidump.elf: as a target, and as what firmware left."""
    phone = Phone.with_log()
    phone.rows += more
    path = tmp_path / "minidump.elf"
    path.write_bytes(b"".join(row.padded for row in phone.table))
    with open_target(str(path)) as target:
        assert log(target) == LOG
    with open_source(str(path), Options()) as source:
        assert source.dump.warnings == []
        check(source.dump, phone)
        assert log(source) == LOG
        assert write_collected(tmp_path / "core", source) == []
    with open_target(str(tmp_path / "core")) as target:
        assert log(target) == LOG


def test_missing_file_is_named(tmp_path: Path) -> None:
    phone = Phone.with_log()
    folder = phone.folder(tmp_path / "dump", listed=True)
    (folder / "md_Klinux_ba11.BIN").unlink()
    collected = collect_folder(folder)
    assert [it.name for it in collected.missing] == ["Klinux_ba11"]
    assert "md_Klinux_ba11.BIN is in the list of files and" in collected.problems[0]
    assert log(DumpTarget(collected)) == LOG


@pytest.mark.parametrize("size", [0, 10, 100, 12000])
def test_truncated_header(tmp_path: Path, size: int) -> None:
    phone = Phone.with_log()
    elf = replace(phone.elf, data=phone.elf.data[:size])
    collected = rawdump(phone.image(tmp_path / "image", [elf, *phone.table[1:]]))
    check(collected, phone)
    assert log(DumpTarget(collected)) == LOG
    assert bool(collected.problems) == (size < 12000)


def test_stray_files(tmp_path: Path) -> None:
    phone = Phone.with_log()
    folder = phone.folder(tmp_path / "dump", listed=True)
    (folder / "md_Kstray.BIN").write_bytes(b"x" * 77)
    (folder / "README").write_text("not ours")
    (folder / "md_link.BIN").symlink_to("/etc/passwd")
    (folder / "md_folder.BIN").mkdir()
    collected = collect_folder(folder)
    check(collected, phone)
    (problem,) = collected.problems
    assert problem.startswith("Kstray (77 bytes) is left out")


def test_vmcoreinfo_under_another_name_and_broken(tmp_path: Path) -> None:
    phone = Phone.with_log()
    elf, info, *rest = phone.table
    renamed = replace(info, name="Kunknown")
    assert (
        log(DumpTarget(rawdump(phone.image(tmp_path / "a", [elf, renamed, *rest]))))
        == LOG
    )
    other = replace(
        info, data=info.data.replace(b"phone", b"other"), address=0x80320000
    )
    collected = rawdump(phone.image(tmp_path / "b", [elf, info, other, *rest]))
    assert "hold different VMCOREINFO" in collected.problems[0]
    broken = replace(info, data=b"OSRELEASE=\xff" + info.data[11:])
    target = DumpTarget(rawdump(phone.image(tmp_path / "c", [elf, broken, *rest])))
    assert "expected VMCOREINFO text" in target.dump.problems[0]
    with pytest.raises(KmemdumpError, match="no VMCOREINFO"):
        target.vmcoreinfo()
    # It can be given, as for any target.
    (tmp_path / "info").write_bytes(info.data)
    given = open_target(str(tmp_path / "c"), vmcoreinfo=tmp_path / "info")
    assert log(given) == LOG


def test_a_region_that_only_starts_with_vmcoreinfo(tmp_path: Path) -> None:
    """The page that the kernel keeps it in, and what is behind that page."""
    phone = Phone.with_log()
    page = phone.info.data.ljust(4096, b"\0") + b"\xff" * 64
    phone.rows.append(Row("Kvmcoreda", 40, 0x80320000, page))
    collected = rawdump(phone.image(tmp_path / "image"))
    assert collected.problems == ()
    assert collected.memory.read(0x80320000, len(page)) == page


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"VA_BITS)=48", b"VA_BITS)=9999999999"),
        (b"VA_BITS)=48", b"VA_BITS)=-1"),
        (b"_stext)=ffff", b"_stext)=-fff"),
        (b"_stext)=ffff800080000000", b"_stext)=ffffffffffffffff"),
        (b"PHYS_OFFSET)=0x", b"PHYS_OFFSET)=-0x"),
        (b"kimage_voffset)=0x", b"kimage_voffset)=-0x"),
    ],
)
def test_hostile_vmcoreinfo(tmp_path: Path, old: bytes, new: bytes) -> None:
    """The ELF header is enough for the log; what VMCOREINFO says may be nonsense."""
    phone = Phone.with_log()
    elf, info, *rest = phone.table
    text = info.data.replace(old, new)
    assert text != info.data
    rows = [elf, replace(info, data=text), *rest]
    assert log(DumpTarget(rawdump(phone.image(tmp_path / "a", rows)))) == LOG
    # Without it, the log may not be found, but nothing else happens.
    target = DumpTarget(rawdump(phone.image(tmp_path / "b", rows[1:])))
    with contextlib.suppress(KmemdumpError, FaultError):
        log(target)


def test_hostile_header(tmp_path: Path) -> None:
    row = Row("Kwraps", 60, 0x80300000, bytes(64), (1 << 64) - 32)
    phone = Phone.with_log()
    phone.rows.append(row)
    assert log(DumpTarget(rawdump(phone.image(tmp_path / "a")))) == LOG


def test_what_is_there_twice(tmp_path: Path) -> None:
    phone = Phone.with_log()
    banner = next(row for row in phone.rows if row.id == 11)
    alias = Row("Kalias", 60, banner.address + 4, banner.data[4:12])
    collected = rawdump(phone.image(tmp_path / "a", [*phone.table, alias, banner]))
    check(collected, phone)
    assert collected.problems == ()
    wrong = Row("Kalias", 60, banner.address + 4, b"x VERSION")
    collected = rawdump(phone.image(tmp_path / "b", [*phone.table, wrong]))
    check(collected, phone)
    (problem,) = collected.problems
    assert problem == (
        f"Klinux_ba and Kalias disagree from {banner.address + 6:#x} on; "
        "Klinux_ba is used"
    )
    beyond = Row("Kbeyond", 60, banner.address + 16, banner.padded[16:] + b"more")
    collected = rawdump(phone.image(tmp_path / "c", [*phone.table, beyond]))
    assert collected.memory.read(banner.address, 28) == banner.padded + b"more"


def test_files_of_one_name(tmp_path: Path) -> None:
    phone = Phone.with_log(downstream=True)
    collected = collect_folder(phone.folder(tmp_path / "dump", listed=True, ids=False))
    assert "md_Kprintk_r.BIN is listed with several addresses" in collected.problems[0]
    assert {it.name for it in collected.missing} == {"Kprintk_r"}


def test_truncated_image(tmp_path: Path) -> None:
    phone = Phone.with_log()
    path = phone.image(tmp_path / "image")
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    collected = rawdump(path)
    assert sum(it.range.size for it in collected.missing) == 10
