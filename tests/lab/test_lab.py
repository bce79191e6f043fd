# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of the lab that boot nothing."""

import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import TargetError, UnsupportedError, UsageError
from kmemdump.formats.cpio import Entry, pack_cpio
from kmemdump.lab import (
    AARCH64,
    X86_64,
    CrashType,
    KernelPackage,
    PackageCache,
    Setup,
    default_folder,
)
from kmemdump.lab.initramfs import make_initramfs
from kmemdump.lab.serial_port import SerialPort
from kmemdump.lab.setup import qemu_arguments
from rigs.scenarios import (
    CHOSEN,
    CHOSEN_AARCH64,
    CHOSEN_X86_64,
    CPUS,
    DEATHS,
    MATRIX,
    TESTED,
)

KERNEL = KernelPackage("6.1", "6.1.0-1-cloud-amd64", "6.1.1-1", Path("/kernel"))


def read_cpio(data):
    # Written from the format's description in the kernel's documentation.
    entries, offset = [], 0
    while True:
        assert data[offset : offset + 6] == b"070701"
        values = [
            int(data[offset + 6 + 8 * i : offset + 14 + 8 * i], 16) for i in range(13)
        ]
        name_end = offset + 110 + values[11]
        assert data[name_end - 1] == 0
        name = data[offset + 110 : name_end - 1].decode()
        start = (name_end + 3) // 4 * 4
        offset = (start + values[6] + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert offset == len(data)
            return entries
        entries.append((name, values[1], data[start : start + values[6]]))


@given(
    st.lists(
        st.tuples(
            st.text("abc/.-_é", min_size=1),
            st.integers(0, 0xFFFF),
            st.binary(max_size=20),
        )
    )
)
def test_cpio_round_trip(entries):
    assert read_cpio(pack_cpio(Entry(*entry) for entry in entries)) == entries


def test_initramfs_names_modules_in_order():
    modules = {"b": b"B", "a": b"A"}
    packed = make_initramfs(b"box", modules, tasks=7, random_mib=3)
    files = {name: (mode, data) for name, mode, data in read_cpio(packed)}
    assert files["lab.conf"][1] == (
        b"TASKS=7\nRANDOM_MIB=3\nPORT=ttyS1\nMODULES='b a'\n"
    )
    assert files["bin/sh"] == (0o120777, b"busybox")
    assert files["init"][0] == 0o100755
    assert files["modules/a.ko"][1] == b"A"
    assert list(files).index("modules") < list(files).index("modules/b.ko")


def test_guest_uses_no_other_applets():
    # What init calls must be linked to busybox, or be the shell's own.
    links = {
        name.removeprefix("bin/")
        for name, mode, _ in read_cpio(make_initramfs(b"", {}, tasks=0, random_mib=0))
        if mode >> 12 == 0o12
    }
    assert {"cat", "dd", "insmod", "ip", "mkdir", "mkfifo", "mount", "sh"} <= links
    assert {"sleep", "stty"} <= links


@pytest.mark.parametrize(
    ("field", "value"),
    [("cpus", 0), ("memory", 1), ("tasks", 20_001), ("random", 513)],
)
def test_setup_bounds(field, value):
    with pytest.raises(UsageError, match=f"{field} is {value}, expected"):
        Setup(KERNEL, **{field: value})


def test_qemu_arguments():
    setup = Setup(KERNEL, cpus=3, arguments=("panic=1", "log_buf_len=1M"))
    arguments = qemu_arguments(setup, Path("/a,b"), guest=5, control=6)
    assert "memory-backend-file,id=ram,size=1024M,mem-path=/a,,b/ram,share=on" in (
        arguments
    )
    assert "socket,id=qmp,path=/a,,b/qmp,server=on,wait=off" in arguments
    assert (
        arguments[-1] == "console=ttyS0 panic=0 no_timer_check panic=1 log_buf_len=1M"
    )
    # Nothing may listen on a network, or reach one.
    assert not {"-netdev", "-nic", "-net", "-vnc", "-gdb"} & set(arguments)


def test_qemu_arguments_without_helpers():
    setup = Setup(KERNEL, share=False, vmcoreinfo=False)
    arguments = qemu_arguments(setup, Path("/x"), guest=5, control=6)
    assert not any("memory-backend" in argument for argument in arguments)
    assert "-device" not in arguments
    assert "qemu_fw_cfg" not in setup.modules


def test_every_value_is_chosen():
    for scenarios, columns in (
        (
            CHOSEN_X86_64,
            {
                "kernel": TESTED[X86_64],
                "cpus": CPUS,
                "death": DEATHS,
            },
        ),
        (
            CHOSEN_AARCH64,
            {
                "kernel": TESTED[AARCH64],
                "death": {CrashType.PANIC, CrashType.SPIN},
            },
        ),
    ):
        for name, values in columns.items():
            assert {getattr(it, name) for it in scenarios} == set(values)
    assert set(CHOSEN) <= set(MATRIX)
    assert len({str(scenario) for scenario in MATRIX}) == len(MATRIX)


def test_default_folder():
    assert default_folder({}) == Path.home() / ".cache/kmemdump/lab"
    assert default_folder({"KMEMDUMP_LAB": "/x"}) == Path("/x")


def test_kernels_outlive_a_run_of_tests(lab_cache):
    """The cache of the tests is removed after them: else each run downloads 4 GB."""
    assert not lab_cache.folder.is_relative_to(os.environ["XDG_CACHE_HOME"])


def test_entry_is_whole_or_absent(tmp_path):
    cache = PackageCache(tmp_path / "lab")

    def fail(folder):
        (folder / "half").write_text("done")
        raise UnsupportedError("no network")

    with pytest.raises(UnsupportedError, match="no network"):
        cache.entry("package", fail)
    assert [path.name for path in cache.folder.iterdir()] == [".package.lock"]
    made = cache.entry("package", lambda folder: (folder / "file").touch())
    assert (made / "file").exists()
    assert cache.entry("package", fail) == made


def test_module_missing(tmp_path):
    kernel = KernelPackage("6.1", "6.1.0-1", "1", tmp_path)
    with pytest.raises(UnsupportedError, match=r"kernel 6\.1\.0-1 has no module lkdtm"):
        kernel.module("lkdtm")


def test_serial_port():
    ours, theirs = socket.socketpair()
    lines = SerialPort(ours, "peer")
    theirs.sendall(b"one\r\ntwo\nthr")
    soon = time.monotonic() + 5
    assert lines.read(soon) == "one"
    assert lines.read(soon) == "two"
    with pytest.raises(TargetError, match="peer: no answer in time"):
        lines.read(time.monotonic() + 0.01)
    theirs.sendall(b"ee\n")
    assert lines.read(soon) == "three"
    theirs.close()
    with pytest.raises(TargetError, match="peer: is gone"):
        lines.read(soon)
    with pytest.raises(TargetError, match="peer: cannot be written to"):
        lines.write("x")
    lines.close()
