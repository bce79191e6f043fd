# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines about sections of memory, from what the kernel's variables and BTF say."""

import pytest

from kmemdump.formats.btf import parse_btf
from kmemdump.formats.btf_layout import BtfLayout
from kmemdump.kernel_search.memory_sections import section_lines
from kmemdump.vmcoreinfo import VmcoreInfo
from rigs.btf_writer import BtfWriter

INFO = VmcoreInfo.parse(
    b"OSRELEASE=6.1\nPAGESIZE=4096\nNUMBER(MAX_PHYSMEM_BITS)=46\n", "info"
)


class Image:
    def value(self, name, size=8):
        table = 0xFFFF888000001000
        return {"mem_section": table, "max_pfn": 0x8000}.get(name, 0)


def layout(size):
    writer = BtfWriter()
    long = writer.integer("unsigned long", 8)
    words = writer.array(long, size // 8)
    writer.struct("mem_section", size, [("section_mem_map", words, 0)])
    return BtfLayout(parse_btf(writer.bytes(), "x"))


def test_sections_of_the_usual_size():
    assert section_lines(Image(), layout(32), INFO) == {
        "SYMBOL(mem_section)": "ffff888000001000",
        "LENGTH(mem_section)": str((1 << 46 - 27) // (4096 // 32)),
        "NUMBER(SECTION_SIZE_BITS)": "27",
    }


@pytest.mark.parametrize("size", [4104, 8192, 1 << 20])
def test_a_size_that_no_section_has(size):
    assert section_lines(Image(), layout(size), INFO) == {}
