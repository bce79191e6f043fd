# SPDX-License-Identifier: GPL-2.0-or-later
"""
A guest whose memory makes a look take forever costs its watch little, others nothing.

What is changed is what kmemdump reads and the kernel itself does not: its types and the
names of its symbols.
"""

import json
import re
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from drgn import Program
from drgn.helpers.linux.mm import follow_phys

from kmemdump.coreimage import read_core, verify
from kmemdump.formats.btf import Btf, BtfKind, parse_btf
from kmemdump.kernel.attach import attach
from kmemdump.lab import CrashType, Machine
from kmemdump.lab.crashes import trigger_crash
from kmemdump.opening import open_target
from rigs.programs import KMEMDUMP
from rigs.watching import PATIENCE

pytestmark = [pytest.mark.vm, pytest.mark.matrix]

CPU = 10.0
"""Seconds of a worker until its VM is marked, or it says why not."""
MEMORY = 1 << 30
_HEADER = struct.Struct("<HBBIIIII")
"""``struct btf_header`` (include/uapi/linux/btf.h)."""
_CHAIN = (
    *("task_struct", "mm_struct", "signal_struct", "files_struct", "rq", "module"),
    *("super_block", "inode", "dentry", "net_device", "sock", "page", "zone"),
    *("pglist_data", "mount", "cred", "nsproxy", "file"),
)
Pokes = Iterator[tuple[int, bytes]]


class Kernel:
    """Where a running kernel's tables are in its VM's memory."""

    def __init__(self, prog: Program, symbol: Callable[[str], int]) -> None:
        self._tables = prog["init_mm"].address_of_()
        self._symbol = symbol
        start, end = symbol("__start_BTF"), symbol("__stop_BTF")
        raw = prog.read(start, end - start)
        header = _HEADER.unpack_from(raw)
        self.btf: Btf = parse_btf(raw, "btf")
        self._types = self.place("__start_BTF") + header[3] + header[4]

    def place(self, symbol: str) -> int:
        """Return the physical address of a symbol."""
        address: int = follow_phys(self._tables, self._symbol(symbol)).value_()
        return address

    def type_at(self, number: int) -> int:
        """Return the physical address of a ``struct btf_type``."""
        return self._types + 4 * self.btf.places[number - 1]

    def all_of(self, kind: BtfKind) -> Iterator[int]:
        """Yield the numbers of all types of a kind."""
        for number in range(1, len(self.btf.places) + 1):
            if self.btf.type(number).kind is kind:
                yield number


def chain(kernel: Kernel) -> Pokes:
    """Structures of which each has 40 anonymous members that are the next one."""
    found = [kernel.btf.find(name, {BtfKind.STRUCT}) for name in _CHAIN]
    numbers = [number for number in found if number]
    for number, following in pairwise(numbers):
        for i in range(min(kernel.btf.type(number).count, 40)):
            at = kernel.type_at(number) + 12 + 12 * i
            yield at, struct.pack("<III", 0, following, 0)


def sizes(kernel: Kernel) -> Pokes:
    """Structures of 4 GiB."""
    for number in kernel.all_of(BtfKind.STRUCT):
        yield kernel.type_at(number) + 8, struct.pack("<I", 0xFFFFFFF0)


def arrays(kernel: Kernel) -> Pokes:
    """Arrays of 2^32 elements."""
    for number in kernel.all_of(BtfKind.ARRAY):
        yield kernel.type_at(number) + 20, struct.pack("<I", 0xFFFFFFFF)


def names(kernel: Kernel) -> Pokes:
    """A megabyte of names of symbols that are all of one length."""
    yield kernel.place("kallsyms_names"), b"\xff" * (1 << 20)


def explode(machine: Machine, bomb: Callable[[Kernel], Pokes]) -> None:
    """Write a bomb into the memory of a VM that runs."""
    with open_target(f"qmp:{machine.qmp}") as vm:
        found = attach(vm)
        info, prog = found.vmcoreinfo, found.prog

        def symbol(name: str) -> int:
            if name.startswith("kallsyms_"):
                return info.symbol(name)
            return int(prog.symbol(name).address)

        pokes = list(bomb(Kernel(prog, symbol)))
    with Path(machine.ram).open("r+b") as file:  # The VM has less than 2 GiB.
        for at, data in pokes:
            file.seek(at)
            file.write(data)


def status_of(vm: str) -> Mapping[str, object]:
    """Return what the watch says of a VM."""
    done = subprocess.run([*KMEMDUMP, "status", "--json"], stdout=subprocess.PIPE)
    for watch in json.loads(done.stdout)["watches"]:
        for row in watch["vms"]:
            if row["vm"] == vm:
                return dict(row)
    raise LookupError(f"no VM {vm} in {done.stdout!r}")


@pytest.mark.parametrize(
    "bomb", [chain, sizes, arrays, names], ids=lambda it: it.__name__
)
def test_a_bomb_costs_little_and_only_its_own_watch(booted, watch, bomb):
    hostile, other = booted("6.12", share=True), booted("6.12", share=True)
    explode(hostile, bomb)
    begun = watch(hostile, other, until_dead=False)
    said = {
        machine: begun.wait_for(rf"(\S+): found: \S*{re.escape(str(machine.qmp))}")[1]
        for machine in (hostile, other)
    }
    for name in said.values():
        begun.wait_for(rf"^{re.escape(name)}: (marked .* areas|.*BTF|.*kallsyms)")
    row = status_of(said[hostile])
    assert row["cpu_seconds"] < CPU
    peak = Path(f"/proc/{row['pid']}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+)", peak)[1]) << 10 < MEMORY
    # One line for its problem, whatever was tried.
    lines = [it for it in begun.lines if it.startswith(f"{said[hostile]}: ")]
    assert len(lines) <= 3, lines
    trigger_crash(other, CrashType.PANIC)
    begun.wait_for(rf"^{re.escape(said[other])}: .*\.core, ", patience=PATIENCE)
    (core,) = begun.cores
    with read_core(core) as image:
        assert verify(image) == []
