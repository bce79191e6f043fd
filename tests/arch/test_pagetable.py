# SPDX-License-Identifier: GPL-2.0-or-later
"""Page tables, built here entry by entry as the CPU's manual says."""

import struct
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.arch import pagetable
from kmemdump.arch.aliases import find_kernel_aliases
from kmemdump.arch.architecture import arch_from_elf
from kmemdump.arch.pagetable import walk
from kmemdump.errors import NotCapturedError, UnsupportedError
from kmemdump.memory.ranges import Alias, Range, clip, merge
from kmemdump.vmcoreinfo import VmcoreInfo

PAGE = 4096
ROOT = 0x2610000
PHYS_BASE = 0x1000000
KERNEL = 0xFFFFFFFF80000000
X86_64 = arch_from_elf(62)
NX = 1 << 63


def make_info(levels: int = 4, sme_mask: int = 0, **more: object) -> VmcoreInfo:
    lines = {
        "OSRELEASE": "6.1.0",
        "SYMBOL(swapper_pg_dir)": f"{KERNEL + ROOT - PHYS_BASE:x}",
        "SYMBOL(_stext)": f"{KERNEL + 0x1000000:x}",
        "NUMBER(phys_base)": PHYS_BASE,
        "NUMBER(pgtable_l5_enabled)": int(levels == 5),
        "NUMBER(sme_mask)": sme_mask,
        "NUMBER(KERNEL_IMAGE_SIZE)": 1 << 30,
        **more,
    }
    text = "".join(f"{key}={value}\n" for key, value in lines.items())
    return VmcoreInfo.parse(text.encode(), "test")


class Tables:
    """Page tables in physical memory."""

    def __init__(self, levels: int, c_bit: int = 0) -> None:
        self.levels = levels
        self.c_bit = c_bit
        self.pages = {ROOT: [0] * 512}
        self.next = 0x10000000
        self.reads = 0

    def map(self, virtual: int, physical: int, level: int = 1) -> None:
        """Map what one entry maps at a level, of which 1 is the last."""
        table = self.pages[ROOT]
        for i in range(self.levels, level, -1):
            index = virtual >> (12 + 9 * (i - 1)) & 511
            if not table[index]:
                table[index] = self.next | self.c_bit | 0x63
                self.pages[self.next] = [0] * 512
                self.next += PAGE
            table = self.pages[table[index] & 0x000FFFFFFFFFF000 & ~self.c_bit]
        index = virtual >> (12 + 9 * (level - 1)) & 511
        large = 0x80 if level > 1 else 0
        table[index] = physical | self.c_bit | NX | 0x163 | large

    def read(self, address: int, size: int) -> bytes:
        assert size == PAGE
        self.reads += 1
        if address not in self.pages:
            raise NotCapturedError(hex(address))
        return struct.pack("<512Q", *self.pages[address])


def aliases(
    tables: Tables, captured: Iterable[Range], skip: tuple[Range, ...] = ()
) -> list[Alias]:
    table = X86_64.page_table(make_info(tables.levels, tables.c_bit))
    found = walk(table, tables.read, skip)
    return clip(found, merge(captured))


EVERYTHING = [Range(0, 1 << 52)]


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("c_bit", [0, 1 << 51])
def test_all_page_sizes(levels: int, c_bit: int) -> None:
    tables = Tables(levels, c_bit)
    stack = 0xFFFFC90000000000 if levels == 4 else 0xFFA0000000000000
    for i in range(4):
        tables.map(stack + i * PAGE, 0x5000000 + i * PAGE)
    tables.map(stack + 5 * PAGE, 0x5005000)  # After a guard page.
    tables.map(stack + 6 * PAGE, 0x9000000)
    tables.map(KERNEL + 0x1000000, 0x2000000, level=2)
    tables.map(KERNEL + 0x1200000, 0x2200000, level=2)
    tables.map(stack + (1 << 30), 1 << 40, level=3)
    tables.map(0x400000, 0x7000000)  # The user's half.
    assert aliases(tables, EVERYTHING) == [
        Alias(stack, 0x5000000, 4 * PAGE),
        Alias(stack + 5 * PAGE, 0x5005000, PAGE),
        Alias(stack + 6 * PAGE, 0x9000000, PAGE),
        Alias(stack + (1 << 30), 1 << 40, 1 << 30),
        Alias(KERNEL + 0x1000000, 0x2000000, 4 << 20),
    ]


def test_last_page() -> None:
    tables = Tables(4)
    tables.map((1 << 64) - PAGE, 0x1000)
    assert aliases(tables, EVERYTHING) == [Alias((1 << 64) - PAGE, 0x1000, PAGE)]


def test_only_captured_memory() -> None:
    tables = Tables(4)
    tables.map(KERNEL, 0x2000000, level=2)
    captured = [
        Range(0x1FFF000, 2 * PAGE),
        Range(0x2003000, 100),
        Range(0x21FFF00, PAGE),
    ]
    assert aliases(tables, captured) == [
        Alias(KERNEL, 0x2000000, PAGE),
        Alias(KERNEL + 0x3000, 0x2003000, 100),
        Alias(KERNEL + 0x1FFF00, 0x21FFF00, 0x100),
    ]


def test_only_captured_tables() -> None:
    tables = Tables(4)
    tables.map(0xFFFFC90000000000, 0x1000)
    tables.map(0xFFFFC90000200000, 0x2000)
    last = max(tables.pages)
    assert tables.pages[last][0] & 0xFFFFFFFFFF000 == 0x2000
    del tables.pages[last]
    assert aliases(tables, EVERYTHING) == [Alias(0xFFFFC90000000000, 0x1000, PAGE)]
    del tables.pages[ROOT]
    assert aliases(tables, EVERYTHING) == []


def test_skip_direct_map() -> None:
    tables = Tables(4)
    base = 0xFFFF9C8FC0000000  # Randomized: aligned to 1 GiB.
    for i in range(8):
        tables.map(base + (i << 30), i << 30, level=3)
    tables.map(base + (9 << 30), 9 << 30)
    vmalloc = base + (100 << 30)
    tables.map(vmalloc, 0x7000)
    tables.reads = 0
    skip = (Range(base, vmalloc - base),)
    assert aliases(tables, EVERYTHING, skip) == [Alias(vmalloc, 0x7000, PAGE)]
    assert tables.reads <= 4


def test_shared_tables() -> None:
    """KASAN maps the shadow of everything to one page, through shared tables."""
    tables = Tables(4)
    shadow = 0xFFFFEC0000000000
    tables.map(shadow, 0x3000)
    pud, pmd, pte = sorted(set(tables.pages) - {ROOT})
    tables.pages[pud] = [pmd | 0x63] * 512
    tables.pages[pmd] = [pte | 0x63] * 512
    tables.pages[pte] = [0x3163] * 512
    tables.reads = 0
    found = aliases(tables, EVERYTHING)
    assert tables.reads == 4
    assert len(found) == 512
    assert found[0] == Alias(shadow, 0x3000, PAGE)


def test_loop() -> None:
    tables = Tables(5)
    tables.pages[ROOT] = [ROOT | 0x63] * 512
    aliases(tables, EVERYTHING)
    assert tables.reads <= 5


def test_reserved_large_page() -> None:
    """Bit 7 is reserved in the two upper levels: such an entry maps nothing."""
    tables = Tables(5)
    tables.map(KERNEL, 0x2000000, level=5)
    assert aliases(tables, EVERYTHING) == []


def test_limits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tables = Tables(4)
    for i in range(100):
        tables.map(0xFFFFC90000000000 + (i << 21), i << 12)
    monkeypatch.setattr(pagetable, "MAX_TABLES", 50)
    assert len(aliases(tables, EVERYTHING)) == 47
    assert "stopped after 50 tables" in caplog.text


@given(
    st.dictionaries(st.integers(0, 8), st.lists(st.integers(0, 2**64 - 1)), min_size=1)
)
def test_any_tables(content: dict[int, list[int]]) -> None:
    """Whatever tables hold, a walk ends, is sorted, and stays in the upper half."""

    def read(address: int, size: int) -> bytes:
        entries = content.get((address - ROOT) // PAGE % 9, [])[:512]
        return struct.pack("<512Q", *entries, *[0] * (512 - len(entries)))

    found = list(walk(X86_64.page_table(make_info(5)), read))
    assert found == sorted(found)
    for before, after in pairwise(found):
        assert before.virtual + before.size <= after.virtual
    assert all(item.virtual >= 0xFF00 << 48 for item in found)
    assert all(item.virtual + item.size <= 1 << 64 for item in found)


def test_image_without_tables() -> None:
    captured = [Range(0x1FFF000, 2 * PAGE), Range(0x8000000, PAGE)]
    tables = Tables(4)
    expected = [
        Alias(KERNEL + 0x1000000, 0x2000000, PAGE),
        Alias(KERNEL + 0x7000000, 0x8000000, PAGE),
    ]
    info = make_info()
    assert find_kernel_aliases(X86_64, info, tables.read, captured, None) == expected
    # With tables, these are right about where the image ends.
    tables.map(KERNEL + 0x1000000, 0x2000000, level=2)
    assert (
        find_kernel_aliases(X86_64, info, tables.read, captured, None) == expected[:1]
    )


def test_no_symbol() -> None:
    info = VmcoreInfo.parse(b"OSRELEASE=6.1.0\n", "test")
    with pytest.raises(NotCapturedError, match="swapper_pg_dir"):
        find_kernel_aliases(X86_64, info, Tables(4).read, EVERYTHING, None)


def test_arch() -> None:
    assert X86_64.name == "x86_64"
    prstatus = bytearray(X86_64.prstatus_size)
    assert len(prstatus) == 336
    with pytest.raises(UnsupportedError, match=r"machine 8 is not supported, only 62"):
        arch_from_elf(8)
