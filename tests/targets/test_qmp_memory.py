# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory of a VM that changes, with a simulated QEMU in this process."""

import os

import pytest

from kmemdump.errors import NotCapturedError, TargetError
from kmemdump.memory.ranges import Range
from kmemdump.targets.qmp_client import QmpClient
from kmemdump.targets.qmp_memory import VmRam
from kmemdump.targets.qmp_ram import open_ram, read_ram_map
from rigs.fake_qemu import FakeQemu, Refusal

HALF, ALL = 0x80000, 0x100000
ADDED = {"event": "ACPI_DEVICE_OST", "data": {"info": {}}}
REMOVED = {"event": "DEVICE_DELETED", "data": {"path": "/machine/peripheral/d"}}


def view(*ranges: tuple[int, int, str, int]) -> str:
    """Return what "info mtree -f" prints: address, size, backend, offset in it."""
    lines = ["FlatView #0", ' AS "memory", root: system', " Root memory region: system"]
    for address, size, name, offset in ranges:
        place = f" @{offset:016x}" if offset else ""
        last = address + size - 1
        lines.append(f"  {address:016x}-{last:016x} (prio 0, ram): {name}{place}")
    return "\n".join(lines) + "\n"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def qemu(tmp_path):
    server = FakeQemu(tmp_path / "qmp", ALL)
    server.ram[:] = os.urandom(ALL)
    server.hmp["info"] = view((0, HALF, "pc.ram", 0))
    yield server
    server.close()


@pytest.fixture
def client(qemu):
    with QmpClient(qemu.path) as connected:
        yield connected


@pytest.fixture
def ram(client, clock):
    found = VmRam(client, clock)
    yield found
    found.memory.close()


def add(qemu: FakeQemu) -> None:
    qemu.hmp["info"] = view((0, ALL, "pc.ram", 0))


def maps_read(qemu: FakeQemu) -> int:
    return qemu.asked.count("qom-list")


def test_after_an_event(qemu, ram, clock):
    held = ram.memory
    add(qemu)
    ram.note_event({"event": "BALLOON_CHANGE", "data": {"actual": 1}})
    assert ram.follow() == []
    ram.note_event(ADDED)
    assert ram.follow() == ["its RAM has 1 MiB now, 0 MiB before"]
    assert held.ranges == [Range(0, ALL)]
    assert held.read(HALF - 2, 4) == qemu.ram[HALF - 2 : HALF + 2]
    assert ram.follow() == []
    # Taken away again.
    clock.now += 1.1
    qemu.hmp["info"] = view((0, HALF, "pc.ram", 0))
    ram.note_event(REMOVED)
    assert len(ram.follow()) == 1
    with pytest.raises(NotCapturedError):
        held.read(HALF, 1)


def test_a_read_that_misses(qemu, ram, clock):
    """As in a guest without ACPI: there is no event."""
    with pytest.raises(NotCapturedError):
        ram.memory.read(HALF, 4)
    asked = maps_read(qemu)
    add(qemu)
    for _ in range(100):  # A damaged kernel; QEMU is left alone.
        with pytest.raises(NotCapturedError):
            ram.memory.read(HALF, 4)
    assert maps_read(qemu) == asked
    clock.now += 11
    assert ram.memory.read(HALF, 4) == qemu.ram[HALF : HALF + 4]
    assert maps_read(qemu) == asked + 1
    assert len(ram.follow()) == 1


def test_a_guest_that_floods(qemu, ram, clock):
    asked = maps_read(qemu)
    for _ in range(1000):
        ram.note_event(ADDED)
        ram.follow()
        clock.now += 0.01
    assert 5 <= maps_read(qemu) - asked <= 11


def test_another_device_at_the_same_place(qemu, ram, clock):
    """The map is as it was; the memory is not."""
    compared = qemu.asked.count("human-monitor-command")
    ram.note_event(ADDED)
    ram.follow()
    assert qemu.asked.count("human-monitor-command") == compared + 1
    before = ram.memory.current
    clock.now += 1.1
    ram.note_event(REMOVED)
    assert ram.follow() == []
    assert ram.memory.current is not before
    assert ram.memory.read(5, 9) == qemu.ram[5:14]


def test_qemu_that_refuses(qemu, ram, clock):
    qemu.answers["qom-list"] = Refusal("busy")
    ram.note_event(ADDED)
    [said] = ram.follow()
    assert said.startswith("cannot follow its memory: ")
    assert "busy" in said
    assert ram.memory.read(5, 9) == qemu.ram[5:14]
    asked = maps_read(qemu)
    clock.now += 30
    assert ram.follow() == []
    assert maps_read(qemu) == asked  # A QEMU that is silent costs seconds each time.
    clock.now += 31
    assert ram.follow() == []  # Said once.
    qemu.answers["qom-list"] = qemu._list
    add(qemu)
    clock.now += 61
    assert len(ram.follow()) == 1
    assert ram.memory.ranges == [Range(0, ALL)]


def test_too_many_ranges(qemu, client):
    qemu.hmp["info"] = view(
        *((i * 4096, 2048, "pc.ram", i * 2048) for i in range(1025))
    )
    with pytest.raises(TargetError, match="1025 ranges of RAM, expected at most 1024"):
        VmRam(client)
    assert "gpa2hva" not in str(qemu.asked)


def test_several_files(qemu, client, tmp_path):
    """Without a right to read QEMU's process, as two files that are shared."""
    names = {"low": (0, HALF), "high": (1 << 32, HALF)}
    files = {}
    for number, name in enumerate(names):
        files[name] = tmp_path / name
        files[name].write_bytes(qemu.ram[number * HALF : (number + 1) * HALF])
    qemu.hmp["info"] = view(*((*names[name], name, 0) for name in names))
    qemu.hmp["gpa2hva"] = "not allowed"
    qemu.answers["qom-list"] = [
        {"name": name, "type": "child<memory-backend-file>"} for name in names
    ]

    def get(arguments: dict[str, str]) -> object:
        name = arguments["path"].rpartition("/")[2]
        values: dict[str, object] = {"share": True, "mem-path": str(files[name])}
        if arguments["property"] not in values:
            raise Refusal("Property not found")
        return values[arguments["property"]]

    def examine(line: str) -> str:
        _, form, address = line.split()
        at, high = divmod(int(address, 0), 1 << 32)[::-1]
        start, count = at + high * HALF, int(form[1:-2])
        return "0: " + " ".join(f"0x{it:02x}" for it in qemu.ram[start : start + count])

    qemu.answers["qom-get"] = get
    qemu.hmp["xp"] = examine
    memory = open_ram(client, read_ram_map(client))
    assert memory.ranges == [Range(0, HALF), Range(1 << 32, HALF)]
    assert memory.read((1 << 32) + 5, 9) == qemu.ram[HALF + 5 : HALF + 14]
    memory.close()
    files["high"].write_bytes(bytes(HALF))  # Not what QEMU reads there.
    with pytest.raises(TargetError, match="does not hold what QEMU reads"):
        open_ram(client, read_ram_map(client))
