# SPDX-License-Identifier: GPL-2.0-or-later
"""The crash kernel's root file system, its places, and what is found there."""

import lzma
import os
from pathlib import Path

import pytest

from kmemdump.crash_kernel.initramfs import pack_crash_initramfs
from kmemdump.crash_kernel.installation import install_initramfs, prepare_partition
from kmemdump.crash_kernel.modules import read_modules
from kmemdump.crash_kernel.places import Place, find_copies, parse_place
from kmemdump.crash_kernel.reserved import memory_in_file
from kmemdump.crash_kernel.settings import (
    SETTINGS,
    CopierSettings,
    find_copy,
    read_places,
)
from kmemdump.crash_kernel.state import read_state
from kmemdump.errors import OutputError, TargetError, UnsupportedError, UsageError
from kmemdump.memory.ranges import Range
from lab.test_lab import read_cpio

RELEASE = "6.12.0-test"


@pytest.fixture
def root(tmp_path):
    """A machine's root file system."""
    modules = tmp_path / "lib/modules" / RELEASE
    (modules / "kernel/fs").mkdir(parents=True)
    (modules / "modules.dep").write_text(
        "kernel/fs/xfs.ko.xz: kernel/fs/sum-32c.ko kernel/fs/base.ko\n"
        "kernel/fs/sum-32c.ko: kernel/fs/base.ko\n"
        "kernel/fs/base.ko:\n"
    )
    (modules / "modules.builtin").write_text("kernel/fs/ext4.ko\n")
    (modules / "kernel/fs/xfs.ko.xz").write_bytes(lzma.compress(b"xfs"))
    (modules / "kernel/fs/sum-32c.ko").write_bytes(b"sum")
    (modules / "kernel/fs/base.ko").write_bytes(b"base")
    (tmp_path / "usr/lib/kmemdump").mkdir(parents=True)
    (tmp_path / "usr/lib/kmemdump/kmemdump-kdump").write_bytes(b"\x7fELF copier")
    (tmp_path / "dev/disk/by-partlabel").mkdir(parents=True)
    (tmp_path / "dev/disk/by-partlabel/dumps").write_bytes(bytes(1 << 20))
    return tmp_path


def test_modules_come_in_the_order_to_load_them(root):
    assert read_modules(RELEASE, ["xfs", "ext4"], root) == {
        "base": b"base",
        "sum_32c": b"sum",
        "xfs": b"xfs",
    }
    with pytest.raises(UnsupportedError, match="there is no module nosuch"):
        read_modules(RELEASE, ["nosuch"], root)
    with pytest.raises(UnsupportedError, match=r"modules\.dep: No such file"):
        read_modules("5.0", ["xfs"], root)


@pytest.mark.parametrize("suffix", ["xz", "gz"])
def test_a_damaged_module(root, suffix):
    folder = root / "lib/modules" / RELEASE
    (folder / f"bad.ko.{suffix}").write_bytes(b"not compressed")
    (folder / "modules.dep").write_text(f"bad.ko.{suffix}:\n")
    with pytest.raises(UnsupportedError, match=rf"bad\.ko\.{suffix}: is damaged"):
        read_modules(RELEASE, ["bad"], root)


def test_installs_a_root_file_system(root, tmp_path):
    places = ("file:/crash@xfs:PARTLABEL=dumps", "raw:PARTLABEL=dumps")
    out = tmp_path / "image"
    settings = CopierSettings(places, "poweroff")
    made = install_initramfs(out, settings, None, RELEASE, root)
    assert made.modules == ("base", "sum_32c", "xfs")
    device = root / "dev/disk/by-partlabel/dumps"
    with pytest.raises(UsageError, match="nothing is mounted in this crash kernel"):
        install_initramfs(out, CopierSettings(("as:/x",)), None, RELEASE, root)
    assert made.prepared == (device,)
    assert device.read_bytes() == b"Raw_Dmp!".ljust(1 << 20, b"\0")
    entries = {name: data for name, _, data in read_cpio(out.read_bytes())}
    assert entries["init"] == b"\x7fELF copier"
    assert entries["modules/xfs.ko"] == b"xfs"
    text = entries["kmemdump.conf"].decode().splitlines()
    assert text[:5] == [
        "load=/modules/base.ko",
        "load=/modules/sum_32c.ko",
        "load=/modules/xfs.ko",
        *(f"to={place}" for place in places),
    ]
    assert "then=poweroff" in text
    # A second time, it is prepared already.
    assert not install_initramfs(out, settings, None, RELEASE, root).prepared


@pytest.mark.parametrize("kind", ["raw:", "file:/crash@ext4:"])
def test_takes_no_file_for_a_partition(kind, tmp_path):
    disk = tmp_path / "sda3"  # A typing error in /dev, where dd made a file of it.
    disk.write_bytes(bytes(65536))
    settings = CopierSettings((f"{kind}{disk}",))
    with pytest.raises(TargetError, match="sda3: is no block device, expected a part"):
        install_initramfs(tmp_path / "image", settings, disk, RELEASE)
    assert not any(disk.read_bytes())
    assert not (tmp_path / "image").exists()


def test_overwrites_no_partition_that_holds_something(tmp_path):
    disk = tmp_path / "disk"
    content = bytes(65536 + 64) + b"_BHRfS_M" + bytes(65536)  # btrfs
    disk.write_bytes(content)
    with pytest.raises(OutputError, match="is not empty"):
        prepare_partition(disk)
    assert disk.read_bytes() == content


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("raw:/dev/sda3", Place("raw", "/dev/sda3")),
        ("console:/dev/hvc0", Place("console", "/dev/hvc0")),
        (
            "memory:0x18000000:0x2000000",
            Place("memory", None, memory=Range(0x18000000, 0x2000000)),
        ),
        (
            "memory:402653184:33554432",
            Place("memory", None, memory=Range(0x18000000, 0x2000000)),
        ),
        ("as:/var/crash/last", Place("as", None, file="/var/crash/last")),
        ("file:/var/crash", Place("file", None, "/var/crash")),
        (
            "file:/crash@ext4:PARTUUID=12-34",
            Place("file", "PARTUUID=12-34", "/crash", "ext4"),
        ),
    ],
)
def test_places(text, place):
    assert parse_place(text) == place


def test_wrong_settings():
    for text in ("raw:", "nfs:/x", "file:x", "file:/a b", "raw:/dev/x y", "as:x"):
        with pytest.raises(UsageError, match="expected file:FOLDER"):
            parse_place(text)
    for text, why in (
        ("memory:0x18000010:0x1000", "whole pages"),
        ("memory:1:2", "whole pages"),
        ("memory:0x18000000:0x0", "whole pages"),
        ("memory:0xfffffffffffff000:0x2000", "wraps around"),
    ):
        with pytest.raises(UsageError, match=why):
            parse_place(text)
    for settings in (CopierSettings(()), CopierSettings(("raw:/dev/a",) * 9)):
        with pytest.raises(UsageError, match="expected 1 to 8"):
            pack_crash_initramfs(b"", settings, {})
    with pytest.raises(UsageError, match="no space"):
        pack_crash_initramfs(b"", CopierSettings(("raw:/dev/a\nthen=halt",)), {})
    many = dict.fromkeys(map(str, range(65)), b"")
    with pytest.raises(UsageError, match="65 modules"):
        pack_crash_initramfs(b"", CopierSettings(("raw:/dev/a",)), many)


def test_finds_what_the_crash_kernel_left(root):
    with pytest.raises(TargetError, match=r"kdump\.conf: No such file"):
        find_copy(root)
    path = root / SETTINGS
    path.parent.mkdir(parents=True)
    path.write_text("# ours\nto=raw:/dev/none\nto=file:/var/crash\nthen=return\n")
    with pytest.raises(TargetError, match=r"no such device .* nothing in /var/crash"):
        find_copy(root)
    crash = root / "var/crash"
    crash.mkdir(parents=True)
    for name in ("kmemdump-99.elf", "kmemdump-100.elf", "kmemdump-x.elf", "dump.1"):
        (crash / name).write_bytes(b"")
    assert find_copy(root) == crash / "kmemdump-100.elf"


def test_finds_it_by_settings_as_the_copier_reads_them(root):
    """Apart by spaces or lines, with remarks; a wrong one does not hide the others."""
    path, crash = root / SETTINGS, root / "var/crash"
    path.parent.mkdir(parents=True)
    crash.mkdir(parents=True)
    (crash / "last").write_bytes(b"")
    (crash / "kmemdump-7.elf").write_bytes(b"")
    for text, name in {
        "to=as:/var/crash/last": "last",
        "then=reboot to=file:/var/crash\tpatience=3\n": "kmemdump-7.elf",
        "to=file:/var/crash # ours: to=as:/var/crash/last\n": "kmemdump-7.elf",
        "#to=as:/var/crash/last\nto=file:/var/crash": "kmemdump-7.elf",
        "to=nfs:/x to=raw: to=as:/none to=as:/var/crash/last": "last",
        "to=file:/var/crash\0to=as:/none": "kmemdump-7.elf",
    }.items():
        path.write_text(text)
        assert find_copy(root) == crash / name, text
    path.write_text("to=nfs:/x to=as:/none#1 to=file:/none\n")
    why = "nfs:/x: expected .*; nothing in /none#1; nothing in /none"
    with pytest.raises(TargetError, match=why):
        find_copy(root)


def test_of_one_time_of_death_the_file_tells(root):
    """Without a clock, several have one; and an old file may have been removed."""
    path, crash = root / SETTINGS, root / "var/crash"
    path.parent.mkdir(parents=True)
    path.write_text("to=file:/var/crash\n")
    crash.mkdir(parents=True)
    for name, changed in (
        ("kmemdump-100-2.elf", 50),
        ("kmemdump-100.elf", 60),
        ("kmemdump-100-10.elf", 40),
        ("kmemdump-99-3.elf", 90),
        ("kmemdump-100-x.elf", 99),
    ):
        (crash / name).write_bytes(b"")
        os.utime(crash / name, (changed, changed))
    (place,) = map(parse_place, read_places(path))
    assert [it.name for it in find_copies(place, root)] == [
        "kmemdump-100.elf",
        "kmemdump-100-2.elf",
        "kmemdump-100-10.elf",
        "kmemdump-99-3.elf",
    ]


@pytest.fixture
def reserved(root):
    """A machine's root file system, with reserved memory behind 64 KiB of RAM."""
    (root / "proc").mkdir()
    lines = "00000000-0000ffff : System RAM\n00010000-0002ffff : Reserved\n"
    (root / "proc/iomem").write_text(lines)
    (root / "dev/mem").write_bytes(bytes(0x30000))
    (root / SETTINGS).parent.mkdir(parents=True)
    (root / SETTINGS).write_text("to=memory:0x10000:0x20000\n")
    return root


def test_finds_what_is_in_reserved_memory(reserved):
    with pytest.raises(TargetError, match="nothing in memory"):
        find_copy(reserved)
    with open(reserved / "dev/mem", "r+b") as memory:
        memory.seek(0x10000)
        memory.write(b"Raw_Dmp!and more")
        memory.seek(0x2FFFF)
        memory.write(b"!")
    found = find_copy(reserved)
    assert found == Range(0x10000, 0x20000)
    with memory_in_file(found, reserved) as path:
        data = path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600
    assert data == b"Raw_Dmp!and more".ljust(0x1FFFF, b"\0") + b"!"
    assert not path.exists()


def test_memory_that_is_in_use_is_no_place(reserved, tmp_path):
    (reserved / SETTINGS).write_text("to=memory:0xf000:0x2000\n")
    with pytest.raises(TargetError, match="is in use"):
        find_copy(reserved)
    settings = CopierSettings(("memory:0xf000:0x2000",))
    with pytest.raises(UnsupportedError, match="is in use"):
        install_initramfs(tmp_path / "image", settings, None, RELEASE, reserved)


def test_knows_whether_it_would_run(tmp_path):
    assert read_state(tmp_path) == (False, 0, ())
    for name, value in {
        "sys/kernel/kexec_crash_loaded": "1\n",
        "sys/kernel/kexec_crash_size": "134217728\n",
        "proc/sys/kernel/panic_on_oops": "0\n",
        "proc/sys/kernel/softlockup_panic": "1\n",
    }.items():
        path = Path(tmp_path, name)
        os.makedirs(path.parent, exist_ok=True)
        path.write_text(value)
    assert read_state(tmp_path) == (True, 128 << 20, ("panic_on_oops",))
