# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's memory with SMEM in it, and what its firmware would find there."""

from collections.abc import Callable, Iterable, Sequence

from kmemdump.errors import NotCapturedError
from kmemdump.memory.ranges import Range
from rigs.writers.minidump import VALI, smem_with, write_regions, write_toc

SMEM = Range(0x80000000, 0x40000)
SCRATCH = Range(0x80100000, 0x10000)
FOREIGN = 0x80200000  # Where another owner has its region array.
TOC = SMEM.start + 0x4000 + 32 + 16  # Where the writer puts item 602.

OTHERS = [
    ("KELF_HDR", 0, VALI, 0x80300000, 0x100),
    ("KLOGBUF", 0, VALI, 0x80301000, 64),
]
"""Rows of other owners."""

Stores = list[tuple[int, bytes]]
View = frozenset[tuple[str, int, int, int]]
"""Name, number, address and size of each region that firmware would dump."""


class FakeMachine:
    """Memory that records each write, in the pieces that are written at once."""

    def __init__(self, toc: bytes | None = None, **smem: int) -> None:
        self.ranges: Sequence[Range] = [Range(SMEM.start, 0x400000)]
        self.data = bytearray(0x400000)
        self.stores: Stores = []
        self.failing: Callable[[], bool] = lambda: False
        self.put(SMEM.start, smem_with(toc or write_toc(), **smem))

    def put(self, address: int, data: bytes) -> None:
        start = address - SMEM.start
        self.data[start : start + len(data)] = data

    def read(self, address: int, size: int) -> bytes:
        start = address - SMEM.start
        if start < 0 or start + size > len(self.data):
            raise NotCapturedError(f"nothing at {address:#x}")
        return bytes(self.data[start : start + size])

    def write(self, address: int, data: bytes) -> None:
        assert len(data) > 0
        for piece in _pieces(address, data):
            if self.failing():
                raise OSError("gone")
            self.stores.append(piece)
            self.put(*piece)

    def close(self) -> None:
        pass


def _pieces(address: int, data: bytes) -> Iterable[tuple[int, bytes]]:
    """Split a write into aligned words: all that a processor does at once."""
    at = 0
    while at < len(data):
        here = address + at
        size = next(n for n in (8, 4, 2, 1) if here % n == 0 and at + n <= len(data))
        yield here, data[at : at + size]
        at += size


def number(machine: FakeMachine, address: int, size: int = 4) -> int:
    return int.from_bytes(machine.read(address, size), "little")


def rows(machine: FakeMachine) -> list[tuple[str, int, bytes, int, int]]:
    """Read the rows that count, valid or not, as firmware does."""
    row = TOC + 16
    if number(machine, row) == 0 or machine.read(row + 4, 4) != b"LBNE":
        return []
    array, count = number(machine, row + 24, 8), number(machine, row + 16)
    found = []
    for i in range(count):
        at = array + 40 * i
        name = machine.read(at, 16).partition(b"\0")[0].decode()
        found.append(
            (
                name,
                number(machine, at + 16),
                machine.read(at + 20, 4),
                number(machine, at + 24, 8),
                number(machine, at + 32, 8),
            )
        )
    return found


def view(machine: FakeMachine) -> View:
    """Read what firmware would dump."""
    return frozenset(
        (name, sequence, address, size)
        for name, sequence, valid, address, size in rows(machine)
        if valid == b"ILAV"
    )


def foreign(rows: list[tuple[str, int, bytes, int, int]] = OTHERS) -> FakeMachine:
    """A machine whose table has rows of other owners."""
    machine = FakeMachine(write_toc(array=FOREIGN, count=len(rows), initialized=1))
    machine.put(FOREIGN, write_regions(rows))
    return machine
