# SPDX-License-Identifier: GPL-2.0-or-later
"""Any process can write what looks like a list; a crash kernel has little memory."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from kmemdump.backends.elf_header_region import Description, describe
from kmemdump.formats.kdump_list import (
    LIST_SIZE,
    ListHalf,
    half_places,
    pack_anchor,
    pack_half,
)
from kmemdump.memory.ranges import Region
from rigs.copier import INFO, LIST, write_vmcore

_FIRST = 4096


def with_check(data: bytes) -> bytes:
    return data + struct.pack("<I4x", zlib.crc32(data))


def forged(start: int, half: int, held: int | None = None) -> tuple[int, bytes]:
    """
    Return a list whose halves have wrong checksums.

    :param half: Size of a half in bytes.
    :param held: How much of the list is there; all of it by default.
    """
    fields = b"kmemdump regions", 1, 2, start, _FIRST, half, 0
    data = bytearray(_FIRST + 2 * half if held is None else held)
    anchor = with_check(struct.pack("<16sIIQQQQ", *fields))
    data[: len(anchor)] = anchor
    for at in (_FIRST, _FIRST + half):
        if at < len(data):
            head = with_check(struct.pack("<QQI", 9, half - 64, 1))
            data[at : at + len(head)] = head
    return start, bytes(data)


_MEASURE = """
import os, resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""A small process starts it: what starts a process counts as its memory, too."""


def run(copier: Path, *settings: str) -> tuple[int, int, str]:
    """Return the exit status, the most memory it took in bytes, and what it said."""
    argv = [sys.executable, "-ISc", _MEASURE, str(copier), *settings]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    status, most = map(int, done.stdout.split())
    return status, most << 10, done.stderr


def test_a_large_one_takes_no_memory(copier, ram, tmp_path):
    vmcore = tmp_path / "vmcore"
    large = forged(1 << 30, 64 << 20)
    write_vmcore(vmcore, [large, (LIST.start, bytes(ram.data))])
    status, most, said = run(copier, f"vmcore={vmcore}", f"to=as:{tmp_path}/out")
    assert (status, "3 regions" in said) == (0, True)
    assert most < 32 << 20
    # Without a good one.
    write_vmcore(vmcore, [large])
    status, most, said = run(copier, f"vmcore={vmcore}", f"to=as:{tmp_path}/none")
    assert (status, f"the list at {1 << 30:#x} is torn: " in said) == (3, True)
    assert most < 32 << 20


def test_many_take_the_memory_of_one(copier, tmp_path):
    """Each is newer than the one before, as in memory of many boots."""
    header, text = describe(
        Description(62, INFO), [Region(i, "r", LIST.end, 16) for i in range(3, 14_000)]
    )
    memory = [(LIST.end, bytes(16))]
    for i in range(24):
        start = (1 << 30) + i * LIST_SIZE
        half = pack_half(ListHalf(i + 1, header + text))
        data = pack_anchor(start).ljust(half_places()[0], b"\0") + half
        memory.append((start, data.ljust(LIST_SIZE, b"\0")))
    vmcore = tmp_path / "vmcore"
    write_vmcore(vmcore, memory)
    status, most, said = run(copier, f"vmcore={vmcore}", f"to=as:{tmp_path}/out")
    assert (status, "13997 regions, list 24," in said) == (0, True)
    assert most < 32 << 20


@pytest.mark.parametrize(
    ("half", "why"),
    [
        ((LIST_SIZE - _FIRST) // 2, "no half of it is whole"),
        ((LIST_SIZE - _FIRST) // 2 + 64, "its start makes no sense"),
        (1 << 63, "its start makes no sense"),
    ],
)
def test_are_no_larger_than_2_mib(copier, tmp_path, half, why):
    vmcore = tmp_path / "vmcore"
    write_vmcore(vmcore, [forged(1 << 30, half, LIST_SIZE)])
    status, _, said = run(copier, f"vmcore={vmcore}", f"to=as:{tmp_path}/out")
    assert (status, why in said) == (3, True)
