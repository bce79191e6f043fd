# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU's "info mtree -f" says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats.mtree import FlatRange, parse_mtree

# QEMU 7.2, q35 with 4 GiB in a memory backend "m", shortened.
Q35 = """\
FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan

FlatView #1
 AS "cpu-smm-0", root: memory
 Root memory region: memory
  0000000000000000-000000007fffffff (prio 0, ram): other

FlatView #3
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-00000000000c2fff (prio 0, ram): m
  00000000000c3000-00000000000e7fff (prio 0, rom): m @00000000000c3000
  00000000000e8000-000000007fffffff (prio 0, ram): m @00000000000e8000 KVM
  00000000b0000000-00000000bfffffff (prio 0, i/o): pcie-mmcfg-mmio
  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios
  0000000100000000-000000017fffffff (prio 0, ram): m @0000000080000000 KVM
  0000000180000000-000000018fffffff (prio 1, ramd): 0000:00:02.0 BAR 0 mmaps[0]
  0000000200000000-000000020fffffff (prio -5, ram): a name @ 1 @0000000000001000

FlatView #4
 AS "mch", root: bus master container
 Root memory region: (none)
  No rendered FlatView
"""


def test_q35():
    assert parse_mtree(Q35, "vm") == [
        FlatRange(0, 0xC3000, "m", 0),
        FlatRange(0xC3000, 0x25000, "m", 0xC3000),
        FlatRange(0xE8000, 0x80000000 - 0xE8000, "m", 0xE8000),
        FlatRange(0xFFFC0000, 0x40000, "pc.bios", 0),
        FlatRange(0x100000000, 0x80000000, "m", 0x80000000),
        FlatRange(0x200000000, 0x10000000, "a name @ 1", 0x1000),
    ]
    assert parse_mtree(Q35.replace("\n", "\r\n"), "vm") == parse_mtree(Q35, "vm")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"memory"', '"mem"', 'no address space "memory"'),
        ("-00000000000c2fff", "-0000000000000000", None),
        ("0000000100000000-", "0000000190000000-", "ends before it starts"),
        ("0000000100000000-", "0000000070000000-", "two ranges of RAM at 0x70000000"),
    ],
)
def test_nonsense(old, new, problem):
    text = Q35.replace(old, new)
    if problem is None:
        assert parse_mtree(text, "vm")[0].size == 1
        return
    with pytest.raises(FormatError, match=problem):
        parse_mtree(text, "vm")


def test_too_long():
    with pytest.raises(FormatError, match="expected at most"):
        parse_mtree(" " * (33 << 20), "vm")


@given(st.text(max_size=300), st.integers(0, len(Q35)), st.integers(0, 300))
def test_any_text(text, offset, count):
    for changed in (text, Q35[:offset] + text + Q35[offset + count :]):
        try:
            sections = parse_mtree(changed, "vm")
        except FormatError:
            continue
        assert sections == sorted(sections)
        assert all(section.size > 0 for section in sections)
