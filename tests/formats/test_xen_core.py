# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of Xen's domains, compared with what a writer of its own put in."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats import xen_core as subject
from kmemdump.formats.xen_core import is_xen_core, parse_context, parse_xen_core
from kmemdump.memory.ranges import Extent
from rigs.synthetic import elf_core
from rigs.writers.xen_core import PAGE, PV, context, xen_core

PAGES = {0: b"a" * PAGE, 1: b"b" * PAGE, 5: b"c" * PAGE, 1 << 40: b"d" * PAGE}
REGISTERS = {"rip": 0xFFFFFFFF81000000, "cs": 0x10, "rsp": 0xFFFFC90000001000, "r15": 9}


def parse(data):
    return parse_xen_core(lambda at, count: data[at : at + count], len(data), "dump")


@given(
    st.lists(
        st.one_of(st.integers(0, 40), st.integers(0, (1 << 52) - 1)),
        unique=True,
        max_size=40,
    ),
    st.integers(0, 3),
)
def test_round_trip(frames, invalid):
    pages = {frame: struct.pack("<Q", frame) * 512 for frame in frames}
    data = xen_core(pages, [context(REGISTERS)], invalid=invalid)
    core = parse(data)
    found = {}
    for address, size, offset in core.extents:
        for skip in range(0, size, PAGE):
            at = offset + skip
            found[(address + skip) // PAGE] = data[at : at + PAGE]
    assert found == pages
    assert not core.problems
    assert core.machine == 62


def test_a_run_is_one_extent_whatever_is_read_at_once(monkeypatch):
    monkeypatch.setattr(subject, "_PIECE", 3)
    pages = dict.fromkeys([*range(7), *range(20, 31)], bytes(PAGE))
    core = parse(xen_core(pages))
    start = core.extents[0].offset
    assert core.extents == [
        Extent(0, 7 * PAGE, start),
        Extent(20 * PAGE, 11 * PAGE, start + 7 * PAGE),
    ]


def test_registers():
    core = parse(xen_core(PAGES, [context(REGISTERS, 0x1234567, gs=99)]))
    cpu = parse_context(core.contexts[0], "CPU 0")
    assert cpu.registers == {
        **dict.fromkeys(cpu.registers, 0),
        "RIP": 0xFFFFFFFF81000000,
        "CS": 0x10,
        "RSP": 0xFFFFC90000001000,
        "R15": 9,
        "GS.base": 99,
    }
    assert (cpu.page_table, cpu.online) == (0x1234000, True)
    in_user_mode = parse_context(context({"cs": 0x33}, gs=99, online=False), "CPU 1")
    assert (in_user_mode.registers["GS.base"], in_user_mode.online) == (7, False)
    with pytest.raises(FormatError, match="CPU 1: 8 bytes, expected 5168"):
        parse_context(bytes(8), "CPU 1")


def test_registers_that_do_not_fit_are_passed_over():
    data = bytearray(xen_core(PAGES, [context(REGISTERS)]))
    at = data.index(struct.pack("<Q", 0xF00FEBEE)) + 8
    struct.pack_into("<Q", data, at, 3)
    core = parse(bytes(data))
    assert len(core.extents) == 3
    assert core.contexts == []
    assert core.problems == ["dump: .xen_prstatus: 5168 bytes for 3 CPUs skipped"]


def test_paravirtual():
    core = parse(xen_core(PAGES, magic=PV))
    assert (core.paravirtual, core.extents) == (True, [])


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"magic": 5}, "magic 0x5 and pages of 4096 bytes"),
        ({"page_size": 65536}, "pages of 65536 bytes"),
        ({"version": 1 << 32}, "version 1 of the format, expected 0"),
    ],
)
def test_refused(fields, problem):
    with pytest.raises(FormatError, match=problem):
        parse(xen_core(PAGES, **fields))


def test_what_lacks_sections():
    data = xen_core(PAGES)
    for name in (b".note.Xen", b".xen_pages", b".xen_pfn", b".xen_prstatus"):
        with pytest.raises(FormatError, match=f"without {name.decode()}, expected"):
            parse(data.replace(name, name.upper()))
    with pytest.raises(FormatError, match="the names of the sections should be at"):
        parse(data[:-1])
    at = data.index(struct.pack("<Q", 0xF00FEBEE)) + 16
    with pytest.raises(FormatError, match=r"\.xen_pages: 16384 bytes, expected 12288"):
        parse(data[:at] + struct.pack("<Q", 3) + data[at + 8 :])


def test_frames_past_all_addresses():
    with pytest.raises(FormatError, match="page frame 0x10000000000000 is past all"):
        parse(xen_core({1 << 52: bytes(PAGE)}))


def test_frames_without_order_are_bounded(monkeypatch):
    monkeypatch.setattr(subject, "_MAX_RUNS", 100)
    with pytest.raises(FormatError, match="more than 100 ranges of pages"):
        parse(xen_core(dict.fromkeys(range(0, 300, 2), bytes(PAGE))))


def test_other_cores_are_none():
    assert is_xen_core(xen_core(PAGES)[:64])
    assert not is_xen_core(elf_core([(0, b"x")])[:64])
    assert not is_xen_core(b"\x7fELF")
