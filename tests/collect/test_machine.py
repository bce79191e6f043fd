# SPDX-License-Identifier: GPL-2.0-or-later
"""What a real kernel leaves: ramoops with parity, and an image that a kinfo finds."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kmemdump.arch.architecture import image_address
from kmemdump.backends.kinfo import KinfoBackend
from kmemdump.cli import main
from kmemdump.errors import NotCapturedError
from kmemdump.firmware.ramoops_search import read_ramoops
from kmemdump.formats.kinfo import ADDRESSES, Kinfo, KinfoLayout
from kmemdump.formats.ramoops_ecc import find_parity
from kmemdump.kernel.attach import attach
from kmemdump.lab import CrashType, KernelPackage, Machine, crash_guest
from kmemdump.memory.ranges import Range, Region
from kmemdump.opening import open_target

AREA = Range(0x30000000, 0x80000)
KINFO = Range(AREA.end, 4096)
RECORD = 0x20000
SIZE = (AREA.size - 3 * 4096) // 3 & ~1
"""Of each zone for a panic: three, beside those for console, user and functions."""

pytestmark = pytest.mark.vm


class Ram:
    """A machine's RAM below 2 GiB, from its host: its file has it from 0 on."""

    def __init__(self, path: Path) -> None:
        self.ranges = [Range(0, path.stat().st_size)]
        self._fd = os.open(path, os.O_RDWR)

    def read(self, address: int, size: int) -> bytes:
        data = os.pread(self._fd, size, address)
        if len(data) < size:
            raise NotCapturedError(f"{address:#x} is not RAM")
        return data

    def write(self, address: int, data: bytes) -> None:
        os.pwrite(self._fd, data, address)

    def close(self) -> None:
        os.close(self._fd)


def mark_kinfo(machine: Machine, ram: Ram) -> None:
    """Tell where the kernel's image is, as its own driver would."""
    target = open_target(f"qmp:{machine.qmp}")
    try:
        kernel = attach(target)
        info = target.vmcoreinfo()
        facts = Kinfo(
            KinfoLayout.SERIES,
            {},
            release=info.osrelease,
            thread_size=16384,
            lengths=(512, 64, 56, 600),
        )
        backend = KinfoBackend(ram, KINFO, facts)
        for id, name in enumerate(ADDRESSES):
            try:
                virtual = kernel.prog.symbol(name).address
            except LookupError:
                if name != "swapper_pg_dir":  # A macro on x86.
                    continue
                virtual = info.symbol(name)
            backend.register(Region(id, name, image_address(info, virtual), 8))
    finally:
        target.close()


def modules(kernel: KernelPackage, folder: Path) -> tuple[Path, ...]:
    paths = []
    for name in ("reed_solomon", "ramoops"):
        paths.append(folder / f"{name}.ko")
        paths[-1].write_bytes(kernel.module(name))
    return tuple(paths)


def test_what_a_real_kernel_leaves(
    booted: Callable[..., Machine],
    lab_kernel: Callable[..., KernelPackage],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = booted(
        "6.12",
        arguments=(f"memmap={(AREA.size + KINFO.size) >> 10}K${AREA.start:#x}",),
        files=modules(lab_kernel("6.12"), tmp_path),
        tasks=20,
    )
    assert machine.ram is not None
    machine.run("insmod /files/reed_solomon.ko")
    machine.run(
        f"insmod /files/ramoops.ko mem_address={AREA.start} mem_size={AREA.size} "
        f"record_size={RECORD} ecc=1"
    )
    ram = Ram(machine.ram)
    mark_kinfo(machine, ram)
    crash_guest(machine, CrashType.PANIC)
    machine.pause()

    # What ramoops kept, with parity as the kernel wrote it.
    zone = ram.read(AREA.start, SIZE)
    assert find_parity(zone) == (SIZE, 16)
    (kept, *_) = read_ramoops(ram, "ram").zones
    assert kept.problems == ()
    assert kept.text.startswith("Panic#1 Part1\n")
    assert "Kernel panic - not syncing: sysrq triggered crash" in kept.text
    # RAM without power forgets.
    for at in (5, 100, 101, 102, 103, 104, 105, 106, 400):
        ram.write(AREA.start + at, bytes([zone[at] ^ 0xFF]))
    (mended, *_) = read_ramoops(ram, "ram").zones
    assert mended.text == kept.text
    assert mended.problems == ("9 wrong bytes are corrected",)
    assert main(["ask", str(machine.ram), "ramoops"]) == 1
    assert "sysrq triggered crash" in capsys.readouterr().out

    # The image, and in it the log.
    core = tmp_path / "core"
    assert main(["regions", str(machine.ram)]) == 0
    assert "swapper_pg_dir" in capsys.readouterr().out
    assert main(["collect", str(machine.ram), "-o", str(core)]) == 0
    capsys.readouterr()
    assert main(["ask", str(machine.ram), "log"]) == 0
    log = capsys.readouterr().out
    assert main(["ask", str(core), "log"]) == 0
    assert capsys.readouterr().out == log
    assert "sysrq triggered crash" in log
