# SPDX-License-Identifier: GPL-2.0-or-later
"""AArch64's page tables, built entry by entry as its manual says, and address maps."""

import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.arch.aliases import find_kernel_aliases
from kmemdump.arch.architecture import arch_from_elf, arch_from_name
from kmemdump.arch.pagetable import translate, walk
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.memory.ranges import Alias, Range
from kmemdump.vmcoreinfo import VmcoreInfo

AARCH64 = arch_from_elf(183)
ROOT = 0x40A10000
VOFFSET = 0xFFFF_8000_4000_0000


def make_info(
    page: int = 4096, configured: int = 48, actual: int | None = None, **more: object
) -> VmcoreInfo:
    lines: dict[str, object] = {
        "OSRELEASE": "6.12.0",
        "PAGESIZE": page,
        "SYMBOL(swapper_pg_dir)": f"{VOFFSET + ROOT:x}",
        "SYMBOL(_stext)": f"{VOFFSET + 0x40010000:x}",
        "NUMBER(kimage_voffset)": f"{VOFFSET:#x}",
        "NUMBER(VA_BITS)": configured,
        "NUMBER(PHYS_OFFSET)": "0x40000000",
    }
    if actual is not None:
        lines["NUMBER(TCR_EL1_T1SZ)"] = f"{64 - actual:#x}"
    lines.update(more)
    text = "".join(f"{key}={value}\n" for key, value in lines.items())
    return VmcoreInfo.parse(text.encode(), "test")


@dataclass
class Tables:
    """Page tables in physical memory, of a granule and a size of addresses."""

    page_shift: int
    bits: int
    tables: dict[int, dict[int, int]] = field(default_factory=lambda: {ROOT: {}})
    next: int = 0x5000_0000
    asked: set[int] = field(default_factory=set)

    def shift(self, level: int) -> int:
        """What an entry maps; the manual calls the last level 3."""
        return self.page_shift + (self.page_shift - 3) * (3 - level)

    @property
    def first(self) -> int:
        levels = range(3, -2, -1)
        return next(i for i in levels if self.shift(i - 1) >= self.bits)

    def address(self, physical: int) -> int:
        """Return the address bits of a descriptor, D8.3 of the manual."""
        if self.page_shift == 16:
            return physical & ~(0xF << 48) | (physical >> 48) << 12
        if self.bits == 52:
            return physical & ~(3 << 50) | (physical >> 50) << 8
        assert physical < 1 << 48
        return physical

    def map(self, virtual: int, physical: int, level: int = 3) -> None:
        table = self.tables[ROOT]
        for i in range(self.first, level):
            index = self.index(virtual, i)
            if index not in table:
                table[index] = self.address(self.next) | 0b11
                self.tables[self.next] = {}
                self.next += 1 << self.page_shift
            entry = table[index] & ~0b11
            at = next(a for a in self.tables if self.address(a) == entry)
            table = self.tables[at]
        kind = 0b11 if level == 3 else 0b01
        # Also attributes: UXN, AF, and MT_NORMAL.
        attributes = 1 << 54 | 1 << 10 | 0 << 2
        table[self.index(virtual, level)] = self.address(physical) | kind | attributes

    def index(self, virtual: int, level: int) -> int:
        width = self.page_shift - 3
        if level == self.first:
            width = self.bits - self.shift(level)
        return virtual >> self.shift(level) & ((1 << width) - 1)

    def word(self, address: int, size: int) -> bytes:
        assert (size, address % 8) == (8, 0)
        table = max(start for start in self.tables if start <= address)
        index = (address - table) // 8
        assert index < 1 << (self.page_shift - 3)
        return struct.pack("<Q", self.tables[table].get(index, 0))

    def read(self, address: int, size: int) -> bytes:
        self.asked.add(size)
        if address not in self.tables:
            raise NotCapturedError(hex(address))
        words = [0] * (size // 8)
        for index, entry in self.tables[address].items():
            words[index] = entry
        return struct.pack(f"<{len(words)}Q", *words)


# Page size, configured and actual size of addresses, and the size that the tables
# have: a CPU that cannot do 52 bits walks less levels, but for pages of 64 KiB.
LAYOUTS = [
    (4096, 39, 39, 39, 1),
    (4096, 48, 48, 48, 0),
    (4096, 52, 48, 48, 0),
    (4096, 52, 52, 52, -1),
    (16384, 47, 47, 47, 1),
    (16384, 48, 48, 48, 0),
    (16384, 52, 47, 47, 1),
    (16384, 52, 52, 52, 0),
    (65536, 42, 42, 42, 2),
    (65536, 48, 48, 48, 1),
    (65536, 52, 48, 52, 1),
    (65536, 52, 52, 52, 1),
]


@pytest.mark.parametrize(("page", "configured", "actual", "bits", "first"), LAYOUTS)
def test_all_layouts(
    page: int, configured: int, actual: int, bits: int, first: int
) -> None:
    tables = Tables(page.bit_length() - 1, bits)
    assert tables.first == first
    top = (1 << 64) - (1 << (actual - 1))  # Not the direct map, which is below.
    block = 1 << tables.shift(2)
    for i in (0, 1, 3):
        tables.map(top + i * page, 0x8000_0000 + i * page)
    tables.map(top + 8 * block, 4 * block, level=2)
    high = 0xC_0000_0000_0000 if bits == 52 else 0x0_8000_0000_0000
    tables.map(top + 16 * block, high)
    tables.map((1 << 64) - page, page)
    table = AARCH64.page_table(make_info(page, configured, actual))
    assert table.root == ROOT
    assert list(walk(table, tables.read)) == [
        Alias(top, 0x8000_0000, 2 * page),
        Alias(top + 3 * page, 0x8000_0000 + 3 * page, page),
        Alias(top + 8 * block, 4 * block, block),
        Alias(top + 16 * block, high, page),
        Alias((1 << 64) - page, page, page),
    ]
    root_size = 8 << (bits - tables.shift(first))
    assert tables.asked == {root_size, page}
    expected = {
        top + page + 8: 0x8000_0000 + page + 8,
        top + 2 * page: None,
        top + 9 * block - 1: 5 * block - 1,
        top + 9 * block: None,
        top + 16 * block: high,
        (1 << 64) - 1: 2 * page - 1,
    }
    assert {at: translate(table, tables.word, at) for at in expected} == expected


def test_large_blocks() -> None:
    tables = Tables(12, 48)
    tables.map(0xFFFF_8000_0000_0000, 0x4000_0000, level=1)
    table = AARCH64.page_table(make_info(actual=48))
    expected = Alias(0xFFFF_8000_0000_0000, 0x4000_0000, 1 << 30)
    assert list(walk(table, tables.read)) == [expected]
    # Of 512 GiB only with addresses of 52 bits.
    tables.map(0xFFFF_8800_0000_0000, 0, level=0)
    assert list(walk(table, tables.read)) == [expected]


def test_reserved_and_invalid_entries() -> None:
    tables = Tables(12, 48)
    tables.map(0xFFFF_8000_0000_0000, 0x4000_0000)
    last = tables.tables[max(tables.tables)]
    last[1] = 0x4000_1001  # A block in the last level is reserved.
    last[2] = 0x4000_2002  # Not valid.
    table = AARCH64.page_table(make_info(actual=48))
    found = list(walk(table, tables.read))
    assert found == [Alias(0xFFFF_8000_0000_0000, 0x4000_0000, 4096)]


def direct_map(info: VmcoreInfo) -> Alias | None:
    def variable(name: str) -> int | None:
        pytest.fail(f"the kernel has no {name}")

    return AARCH64.direct_map(info, variable)


# What real kernels said, and what the kernel's own translation of an address was.
KERNELS = [
    # Debian's 6.12 (52 bits configured) on a Cortex-A72: random, and moved down to
    # where a CPU of 48 bits can reach it.
    (52, 48, 0xFFF0_E79F_8000_0000, 0x42AC_9280, 0xFFFF_1860_C2AC_9280),
    # On a CPU with LPA2, whose direct map is as large as it can be: not random.
    (52, 52, 0x4000_0000, 0x43EA_CA00, 0xFFF0_0000_03EA_CA00),
    # 48 bits, not random.
    (48, 48, 0x4000_0000, 0x4221_D140, 0xFFFF_0000_0221_D140),
]


@pytest.mark.parametrize(
    ("configured", "actual", "offset", "physical", "virtual"), KERNELS
)
def test_direct_map(
    configured: int, actual: int, offset: int, physical: int, virtual: int
) -> None:
    info = make_info(4096, configured, actual, **{"NUMBER(PHYS_OFFSET)": hex(offset)})
    found = direct_map(info)
    assert found is not None
    assert virtual - found.virtual == physical - found.physical
    assert found.virtual <= virtual < found.virtual + found.size
    assert found.physical >= 0
    # The rest is for modules, vmalloc and the image.
    assert found.virtual + found.size == 0xFFFF_8000_0000_0000
    assert found.virtual >= (1 << 64) - (1 << actual)


def test_direct_map_before_it_was_flipped() -> None:
    info = make_info(
        **{
            "SYMBOL(_stext)": "ffff000008080000",
            "NUMBER(PHYS_OFFSET)": "0x40000000",
        }
    )
    found = direct_map(info)
    assert found == Alias(0xFFFF_8000_0000_0000, 0x4000_0000, 1 << 47)


def test_what_vmcoreinfo_must_tell() -> None:
    info = VmcoreInfo.parse(b"OSRELEASE=6.12.0\nPAGESIZE=4096\n", "test")
    assert direct_map(info) is None
    with pytest.raises(NotCapturedError, match="VA_BITS"):
        AARCH64.page_table(info)
    with pytest.raises(FormatError, match="PAGESIZE=8192, expected 4096"):
        AARCH64.page_table(make_info(8192))
    for bits in (-5, 12, 64, 1 << 40):
        with pytest.raises(FormatError, match=r"VA_BITS is .*, expected 36 to 52"):
            AARCH64.page_table(make_info(4096, bits))
    with pytest.raises(FormatError, match="TCR_EL1_T1SZ is 64, expected 36 to 52"):
        direct_map(make_info(4096, 48, 64))


def test_image_without_tables() -> None:
    captured = [Range(0x3FFF_F000, 0x3000), Range(0x5000_0000, 0x1000)]
    names = find_kernel_aliases(
        AARCH64, make_info(), Tables(12, 48).read, captured, None
    )
    # The image begins at _text, a little before _stext.
    assert names == [Alias(VOFFSET + 0x4000_0000, 0x4000_0000, 0x2000)]


def test_prstatus() -> None:
    # struct elf_prstatus of arm64: pr_reg at 112, of 34 words, then pr_fpvalid.
    status = struct.pack("<112x34Qi4x", *range(34), 0)
    assert len(status) == AARCH64.prstatus_size


@given(st.integers(0, (1 << 64) - 1))
def test_untagged(address):
    """As sign_extend64() of bit 55, arch/arm64/include/asm/memory.h."""
    arch = arch_from_name("aarch64")
    sign = -(address >> 55 & 1) << 56
    assert arch.untagged(address) == (address & (1 << 56) - 1 | sign) % (1 << 64)
    assert arch.untagged(arch.untagged(address)) == arch.untagged(address)
    assert arch.is_kernel_address(address) == (arch.untagged(address) >> 63 == 1)


def test_tagged_pointers():
    arch = arch_from_name("aarch64")
    for tagged, plain in (
        (0xF4FF00000302A000, 0xFFFF00000302A000),
        (0xFFFF80001234_5678, 0xFFFF80001234_5678),
        (0x3E00AAAADEADBEEF, 0x0000AAAADEADBEEF),
    ):
        assert arch.untagged(tagged) == plain
    x86 = arch_from_name("x86_64")
    assert x86.untagged(0xFF11000012345678) == 0xFF11000012345678  # 5 levels.


@pytest.mark.parametrize(
    ("before", "at", "waits"),
    [
        (0xD503207F, 0xD65F03C0, True),  # After WFI.
        (0xD65F03C0, 0xD503207F, True),  # At WFI.
        (0xD5031033, 0, True),  # After WFIT X19.
        (0xD4000002, 0, True),  # After HVC #0, as of PSCI.
        (0xD4000003, 0, True),  # After SMC #0.
        (0xD503205F, 0xD503205F, False),  # WFE: as in a spin lock.
        (0xD503203F, 0x17FFFFFF, False),  # YIELD; B .-4
        (0xD4000001, 0, False),  # SVC #0
    ],
)
def test_waiting(before, at, waits):
    code = struct.pack("<II", before, at)
    arch = arch_from_name("aarch64")
    read = lambda address, size: code[address - 0x1000 :][:size]  # noqa: E731
    assert arch.is_waiting(read, 0x1004) == waits


def test_waiting_on_x86_64():
    arch = arch_from_name("x86_64")
    for code, waits in (
        (b"\x0f\x01\xc9\xeb\xfe\x90", True),  # After MWAIT.
        (b"\x90\x90\x90\x0f\x01\xc9", True),  # At MWAIT.
        (b"\x0f\x01\xc8\xf3\x90\xeb", False),  # MONITOR; PAUSE; JMP
    ):
        read = lambda address, size, code=code: code[address - 0x1000 :][:size]  # noqa: E731
        assert arch.is_waiting(read, 0x1003) == waits


@pytest.mark.parametrize(
    ("page", "configured", "least"),
    [
        (4096, 39, 39),
        (4096, 48, 48),
        (4096, 52, 48),
        (16384, 36, 36),
        (16384, 47, 47),
        (16384, 48, 48),
        (16384, 52, 47),
        (65536, 42, 42),
        (65536, 48, 48),
        (65536, 52, 48),
    ],
)
def test_where_the_direct_map_ends(page: int, configured: int, least: int) -> None:
    """As ``VA_BITS_MIN`` says, in arch/arm64/include/asm/memory.h."""
    end = (1 << 64) - (1 << (least - 1))
    text = f"{end + (1 << 31):x}"
    lines = {"NUMBER(PHYS_OFFSET)": "0x40000000", "SYMBOL(_stext)": text}
    found = direct_map(make_info(page, configured, **lines))
    assert found is not None
    assert found.virtual + found.size == end
