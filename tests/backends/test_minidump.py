# SPDX-License-Identifier: GPL-2.0-or-later
"""The minidump backend."""

import struct

import pytest

from kmemdump.backends import SelfDescribing
from kmemdump.backends.elf_header_region import Description
from kmemdump.backends.minidump import MinidumpBackend
from kmemdump.errors import BackendError, FormatError, TargetError
from kmemdump.firmware.smem_search import find_smem
from kmemdump.formats.elfheader import parse_header_region
from kmemdump.marking.registry import Registry
from kmemdump.memory.ranges import Range, Region
from rigs.machine import (
    FOREIGN,
    OTHERS,
    SCRATCH,
    SMEM,
    TOC,
    FakeMachine,
    foreign,
    number,
    rows,
    view,
)
from rigs.writers import put
from rigs.writers.minidump import DSBL, write_regions, write_toc


def open_backend(machine: FakeMachine, **settings: object) -> MinidumpBackend:
    settings.setdefault("scratch", SCRATCH)
    return MinidumpBackend(machine, SMEM, **settings)


def test_register() -> None:
    machine = FakeMachine()
    backend = open_backend(machine)
    assert isinstance(backend, SelfDescribing)
    assert backend.capacity == 201
    backend.register(Region(44, "kmsg@1000", 0x80300000, 5))
    backend.register(Region(7, "a/b\\c d€", 0x80300010, 8))
    assert rows(machine) == [
        ("Kkmsg_100", 44, b"ILAV", 0x80300000, 8),
        ("Ka_b_c_d_", 7, b"ILAV", 0x80300010, 8),
    ]
    backend.unregister(Region(44, "kmsg@1000", 0x80300000, 5))
    assert rows(machine) == [("Ka_b_c_d_", 7, b"ILAV", 0x80300010, 8)]
    for region, problem in (
        (Region(7, "b", 0, 4), "id 7 is already used"),
        (Region(8, "b", 0, 0), "b has no bytes"),
    ):
        with pytest.raises(BackendError, match=problem):
            backend.register(region)
    with pytest.raises(BackendError, match="id 44 is not registered"):
        backend.unregister(Region(44, "", 0, 0))


def test_encryption_only_off_when_told() -> None:
    machine = FakeMachine()
    open_backend(machine)
    assert machine.read(TOC + 16 + 8, 8) == b"ENONSEY\0"
    open_backend(machine, no_encryption=True)
    assert machine.read(TOC + 16 + 8, 8) == b"ENODRN\0\0"
    machine = foreign()
    open_backend(machine)
    assert machine.read(TOC + 16 + 8, 8) == b"ENONSEY\0"
    open_backend(machine, no_encryption=True)
    assert machine.read(TOC + 16 + 8, 8) == b"ENODRN\0\0"


def test_full() -> None:
    machine = FakeMachine()
    backend = open_backend(machine)
    for i in range(201):
        backend.register(Region(i + 3, f"r{i}", 0x80300000 + 16 * i, 16))
    with pytest.raises(BackendError, match="the minidump table is full: 0 rows of o"):
        backend.register(Region(900, "one", 0x80310000, 4))
    assert len(view(machine)) == 201


def test_rows_of_others_are_left_alone() -> None:
    machine = foreign()
    backend = open_backend(machine)
    assert backend.capacity == 199
    backend.register(Region(3, "mine", 0x80302000, 4))
    assert rows(machine) == [*OTHERS, ("Kmine", 3, b"ILAV", 0x80302000, 4)]
    backend.unregister(Region(3, "mine", 0x80302000, 4))
    assert rows(machine) == OTHERS
    assert machine.read(FOREIGN, 80) == write_regions(OTHERS)


def test_somebody_else_changes_the_table() -> None:
    machine = foreign()
    backend = open_backend(machine)
    backend.register(Region(3, "mine", 0x80302000, 4))
    put(machine.data, TOC + 16 + 16 - SMEM.start, 4, 4)
    with pytest.raises(BackendError, match="it has 4 rows, expected 3"):
        backend.register(Region(4, "more", 0x80302000, 4))


def test_no_writes_after_a_failed_one() -> None:
    machine = FakeMachine()
    backend = open_backend(machine)
    machine.failing = lambda: True
    with pytest.raises(OSError, match="gone"):
        backend.register(Region(3, "a", 0x80300000, 4))
    machine.failing = lambda: False
    with pytest.raises(BackendError, match=r"an earlier store .* failed: gone"):
        backend.register(Region(4, "b", 0x80300000, 4))


@pytest.mark.parametrize(
    ("machine", "settings", "problem"),
    [
        (FakeMachine(write_toc(status=0)), {}, "firmware is not ready"),
        (FakeMachine(bytes(40)), {}, "item of 40 bytes, expected at least 48"),
        (FakeMachine(items=602), {}, "item 602: expected a number below 602"),
        (FakeMachine(), {"scratch": None}, "no scratch memory of 8040 bytes"),
        (FakeMachine(), {"scratch": Range(SCRATCH.start, 8039)}, "of 8040 bytes"),
        (
            foreign([(f"K{i}", i, b"ILAV", 0x80301000, 8) for i in range(201)]),
            {},
            "others have all 201 rows",
        ),
        (
            FakeMachine(write_toc(array=1, count=1, initialized=1, enabled=DSBL)),
            {},
            "its owner has not enabled it",
        ),
        (
            FakeMachine(write_toc(array=FOREIGN, count=5000, initialized=1)),
            {},
            "5000 regions, expected at most 4096",
        ),
        (
            FakeMachine(write_toc(array=0x1000, count=1, initialized=1)),
            {},
            "nothing at 0x1000",
        ),
    ],
)
def test_refused(
    machine: FakeMachine, settings: dict[str, object], problem: str
) -> None:
    with pytest.raises(BackendError, match=problem):
        open_backend(machine, **settings)


def test_smem_refused() -> None:
    machine = FakeMachine()
    put(machine.data, 0xC0, 4, 0)
    with pytest.raises(BackendError, match="no usable minidump table: SMEM at"):
        open_backend(machine)
    with pytest.raises(BackendError, match="expected below 4 GiB"):
        MinidumpBackend(machine, Range((1 << 32) - 4096, 0x40000))


def test_scratch_from_smem() -> None:
    machine = FakeMachine()
    with pytest.raises(BackendError, match="ENOSPC"):
        open_backend(machine, scratch=None, scratch_item=500)  # Of 32 KiB only.


REGION = Region(3, "log", 0x80300000, 0x1001)
INFO = b"OSRELEASE=6.12\n"


def test_describes_itself() -> None:
    machine = FakeMachine()
    registry = Registry(machine.ranges, description=Description(183, INFO))
    registry.attach(open_backend(machine))
    registry.register("log", 0x80300000, 0x1001, virtual=0xFFFF800080300000)
    assert registry.description_problem is None
    head, text, log = rows(machine)
    assert head[:3] == ("KELF", 1, b"ILAV")
    assert text[:3] == ("Kvmcorein", 2, b"ILAV")
    assert log == ("Klog", 3, b"ILAV", 0x80300000, 0x1004)
    assert machine.read(text[3], text[4]) == INFO + b"\0"
    header = parse_header_region(machine.read(head[3], head[4]), "KELF")
    (entry,) = header.entries
    assert (entry.vaddr, entry.paddr) == (0xFFFF800080300000, 0x80300000)
    # What qdl makes of it: header, VMCOREINFO, regions, one behind the other.
    assert entry.offset == head[4] + text[4]
    registry.unregister(3)
    assert len(rows(machine)) == 2
    registry.detach()
    assert rows(machine) == []


def test_no_place_for_the_description() -> None:
    for scratch in (None, Range(SCRATCH.start, 100)):
        registry = Registry(description=Description(183, INFO))
        machine = foreign()
        registry.attach(open_backend(machine, scratch=scratch))
        registry.register("log", 0x80300000, 16)
        assert "scratch memory" in str(registry.description_problem)
        assert rows(machine) == [*OTHERS, ("Klog", 3, b"ILAV", 0x80300000, 16)]


def test_what_an_earlier_run_left_is_taken_over() -> None:
    for machine in (foreign(), FakeMachine()):
        before = rows(machine)
        for _ in range(3):
            registry = Registry(machine.ranges, description=Description(183, INFO))
            registry.attach(open_backend(machine))
            registry.register("log", 0x80300000, 0x1001)
            assert len(rows(machine)) == len(before) + 3
        assert rows(machine)[: len(before)] == before


def test_withdrawing_leaves_the_machine_as_it_was() -> None:
    for machine in (foreign(), FakeMachine()):
        before = rows(machine), number(machine, TOC + 16)
        backend = open_backend(machine)
        registry = Registry(machine.ranges, description=Description(183, INFO))
        registry.attach(backend)
        registry.register("log", 0x80300000, 0x1001)
        assert len(rows(machine)) == len(before[0]) + 3
        backend.withdraw()
        assert (rows(machine), number(machine, TOC + 16)) == before


def test_withdrawing_what_another_run_left() -> None:
    for machine in (foreign(), FakeMachine()):
        before = rows(machine), number(machine, TOC + 16)
        registry = Registry(machine.ranges, description=Description(183, INFO))
        registry.attach(open_backend(machine))
        registry.register("log", 0x80300000, 0x1001)
        open_backend(machine).withdraw()
        assert (rows(machine), number(machine, TOC + 16)) == before


def test_find_smem() -> None:
    machine = FakeMachine()
    assert find_smem(machine) == SMEM
    machine.put(SMEM.start + 0x100000, machine.read(SMEM.start, SMEM.size))
    with pytest.raises(FormatError, match="2 SMEM regions"):
        find_smem(machine)
    put(machine.data, 0xC0, 4, 0)
    assert find_smem(machine).start == SMEM.start + 0x100000
    put(machine.data, 0x1000C0, 4, 0)
    with pytest.raises(TargetError, match="no SMEM of version 12 found"):
        find_smem(machine)
    assert number(machine, SMEM.start + 0xC0) == 0


def test_pages_that_look_like_smem() -> None:
    """A guest can fill its memory with them, and name any sizes."""
    sizes: list[int] = []

    class Machine(FakeMachine):
        def read(self, address: int, size: int) -> bytes:
            sizes.append(size)
            return super().read(address, size)

    def table(*offsets: int) -> bytes:
        rows = b"".join(struct.pack("<II40x", it, 4096) for it in offsets)
        return struct.pack("<4sII20x", b"$TOC", 1, len(offsets)) + rows

    machine = Machine()
    for page in range(0x100000, 0x200000, 4096):
        machine.put(SMEM.start + page, b"$PRT")
    machine.put(SMEM.start + 0x200000, table(1 << 26, 1 << 30, 1 << 31))
    assert find_smem(machine) == SMEM
    assert max(sizes) <= 64 << 20
    machine.put(SMEM.start + 0x300000, table(*range(4096, 84 * 4096, 4096)))
    for page in range(0x280000, 0x300000, 4096):
        machine.put(SMEM.start + page, b"$PRT")
    assert find_smem(machine) == SMEM
    # Those that begin as SMEM does are read.
    for page in range(0x280000, 0x300000, 4096):
        machine.put(SMEM.start + page, machine.read(SMEM.start, 0x1000))
        machine.put(SMEM.start + page, b"$PRT")
    with pytest.raises(FormatError, match=r"(?s)1024 MiB look like SMEM.*--smem"):
        find_smem(machine)
