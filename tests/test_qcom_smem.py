# SPDX-License-Identifier: GPL-2.0-or-later
"""
Linux's own SMEM driver judges ours: what it accepts our parser accepts, what it refuses
our parser refuses, and of an item both say the same.

Debian's generic arm64 kernel has the driver (qcom_smem), and plain memory does for the
hardware lock that it wants.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from kmemdump.errors import FormatError
from kmemdump.formats.smem import HOST_ANY, parse_smem
from kmemdump.lab import AARCH64, Machine, PackageCache, Setup
from kmemdump.lab.module import build_modules
from kmemdump.lab.reserved import boot_smem, smem_range
from rigs.snapshots import Snapshots
from rigs.writers.minidump import write_toc
from rigs.writers.smem import ANY, Part, write_smem

WHERE = smem_range(AARCH64)
PARTITION = 0x4000
TABLE = WHERE.size - 4096
SOURCES = [
    Path(__file__).with_name("smem_probe") / name for name in ("Kbuild", "smem_probe.c")
]

Asked = tuple[int, int]
"""Host and item."""
MINIDUMP = (HOST_ANY, 602)


def changed(at: int, data: bytes | int, base: bytes | None = None) -> bytes:
    """SMEM as firmware makes it, with something else at a place."""
    raw = data if isinstance(data, bytes) else struct.pack("<I", data)
    smem = bytearray(boot_smem() if base is None else base)
    smem[at : at + len(raw)] = raw
    return bytes(smem)


def written(*parts: Part, **settings: object) -> bytes:
    return bytes(write_smem(parts, size=WHERE.size, **settings))


def allocated() -> bytes:
    """What the backend makes of it when it allocates its scratch memory."""
    smem = bytearray(boot_smem())
    plan = parse_smem(bytes(smem), "smem", address=0).allocate(HOST_ANY, 650, 0x10001)
    for address, data in plan.stores:
        smem[address : address + len(data)] = data
    return bytes(smem)


GLOBAL = Part(ANY, ANY, {602: write_toc(), 603: b"odd"}, {604: b"cached"})
PRIVATE = Part(0, 1, {9: b"nine"}, size=0x1000)

LAYOUTS: dict[str, tuple[bytes, tuple[Asked, ...]]] = {
    "as firmware makes it": (boot_smem(), (MINIDUMP, (HOST_ANY, 603))),
    "with an item of ours": (allocated(), (MINIDUMP, (HOST_ANY, 650))),
    "with everything": (
        written(GLOBAL, PRIVATE),
        (MINIDUMP, (HOST_ANY, 603), (HOST_ANY, 604), (1, 9), (1, 602), (2, 602)),
    ),
    "without the info block": (written(GLOBAL, items=None), (MINIDUMP,)),
    "with too few items": (written(GLOBAL, items=602), (MINIDUMP,)),
    "with just enough items": (written(GLOBAL, items=603), (MINIDUMP,)),
    "version 11": (
        written(version=11, heap={8: b"eight", 100: b"x"}),
        ((HOST_ANY, 8), (HOST_ANY, 9), MINIDUMP),
    ),
    "nothing": (bytes(WHERE.size), ()),
    "not initialized": (changed(0xC0, 0), ()),
    "initialized twice": (changed(0xC0, 2), ()),
    "reserved is not 0": (changed(0xCC, 1), ()),
    "version 10": (changed(0x5C, 10 << 16), ()),
    "version 13": (changed(0x5C, 13 << 16), ()),
    "no partition table": (changed(TABLE, b"$TOX"), ()),
    "table of version 2": (changed(TABLE + 4, 2), ()),
    "no global partition": (changed(TABLE + 32 + 12, b"\x05\0\x06\0"), ()),
    "partition without a mark": (changed(PARTITION, b"$PRX"), ()),
    "another host 0": (changed(PARTITION + 4, b"\x01\0"), ()),
    "another host 1": (changed(PARTITION + 6, b"\x01\0"), ()),
    "another size": (changed(PARTITION + 8, 0x8000), ()),
    "used beyond its end": (changed(PARTITION + 12, 0x40001), ()),
    "private one without a mark": (
        changed(PARTITION + 0x8000, b"$PRX", written(GLOBAL, PRIVATE)),
        (),
    ),
    "two for one processor": (written(GLOBAL, PRIVATE, PRIVATE), ()),
    "item without a canary": (changed(PARTITION + 32, b"\0\0"), (MINIDUMP,)),
}


def ours(smem: bytes, asked: tuple[Asked, ...]) -> list[str] | None:
    """What our parser says: ``None`` if it refuses all of it."""
    try:
        parsed = parse_smem(smem, "smem", address=WHERE.start)
    except FormatError:
        return None
    answers = []
    for host, number in asked:
        try:
            item = parsed.lookup(host, number)
        except FormatError:
            answers.append("refused")
            continue
        at = item.address - WHERE.start
        answers.append(
            f"{item.size} bytes {smem[at : at + min(item.size, 16)].hex(' ')}"
        )
    return answers


@pytest.fixture(scope="module")
def guest(
    lab_cache: PackageCache,
    snapshots: Snapshots,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Machine]:
    kernel = lab_cache.kernel("6.12-generic", AARCH64)
    built = build_modules(lab_cache, kernel, "smem_probe", SOURCES)
    folder = tmp_path_factory.mktemp("modules")
    files = [built / "smem_probe.ko"]
    for name in ("qcom_hwspinlock", "smem"):
        files.append(folder / f"{name}.ko")
        files[-1].write_bytes(kernel.module(name))
    setup = Setup(kernel, firmware=True, files=tuple(files), tasks=0)
    with snapshots.machine(setup) as machine:
        machine.run("insmod /files/qcom_hwspinlock.ko")
        yield machine


def driver(machine: Machine, smem: bytes, asked: tuple[Asked, ...]) -> list[str] | None:
    """What Linux's driver says."""
    assert machine.ram is not None
    with open(machine.ram, "r+b") as ram:
        ram.seek(WHERE.start - AARCH64.ram)
        ram.write(smem)
    machine.run("dmesg -c >/dev/null; insmod /files/smem.ko")
    try:
        bound = machine.run("ls /sys/bus/platform/drivers/qcom-smem")
        if f"{WHERE.start:x}.smem" not in bound:
            return None
        answers = []
        for host, number in asked:
            # It says what it has to say, and does not stay.
            probe = f"insmod /files/smem_probe.ko host={host} item={number}"
            machine.run(f"{probe} 2>/dev/null || true")
            said = machine.run("dmesg -c")
            found = re.search(rf"smem_probe: {host} {number}: (.*)", said)
            assert found, said
            error = found[1].startswith("error")
            answers.append("refused" if error else found[1].strip())
        return answers
    finally:
        machine.run("rmmod smem")


@pytest.mark.vm
def test_linux_judges_the_same(guest: Machine) -> None:
    wrong = {}
    for name, (smem, asked) in LAYOUTS.items():
        expected = driver(guest, smem, asked)
        if ours(smem, asked) != expected:
            wrong[name] = (ours(smem, asked), expected)
    assert wrong == {}


def test_what_linux_is_asked() -> None:
    """It is no agreement if all is refused, or nothing."""
    verdicts = [ours(smem, asked) for smem, asked in LAYOUTS.values()]
    assert sum(verdict is None for verdict in verdicts) >= 12
    assert ours(*LAYOUTS["as firmware makes it"]) == [
        "336 bytes 01 00 00 00 01 00 00 00 01 00 00 00 00 00 00 00",
        "refused",
    ]
