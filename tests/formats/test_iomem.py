# SPDX-License-Identifier: GPL-2.0-or-later
"""What may be written on a live machine is decided by this file."""

import pytest

from kmemdump.errors import FormatError
from kmemdump.formats.iomem import find_use, parse_iomem
from kmemdump.memory.ranges import Range

X86_64 = """\
00001000-0009fbff : System RAM
000a0000-000bffff : PCI Bus 0000:00
00100000-2fffffff : System RAM
  1a600000-1b601f07 : Kernel code
30000000-303fffff : Reserved
30400000-3ffdffff : System RAM
3ffe0000-3fffffff : Reserved
b0000000-bfffffff : PCI MMCONFIG 0000 [bus 00-ff]
  b0000000-bfffffff : Reserved
    b0000000-bfffffff : pnp 00:04
fec00000-fec003ff : IOAPIC 0
"""
AARCH64 = """\
09000000-09000fff : pl011@9000000
  09000000-09000fff : 9000000.pl011 pl011@9000000
40000000-6fffffff : System RAM
  4f000000-4f00ffff : reserved
70000000-703fffff : reserved
70400000-7fffffff : System RAM
"""


@pytest.mark.parametrize(
    ("text", "start", "size", "use"),
    [
        (X86_64, 0x30000000, 0x400000, None),
        (X86_64, 0x30100000, 0x1000, None),
        (X86_64, 0x2FFFF000, 0x2000, "System RAM"),
        (X86_64, 0x303FF000, 0x2000, "System RAM"),
        (X86_64, 0x1A601000, 0x1000, "Kernel code"),
        (X86_64, 0xB0000000, 0x1000, "pnp 00:04"),
        (X86_64, 0xFEC00000, 0x1000, "IOAPIC 0"),
        (X86_64, 0x0, 0x100000000, "IOAPIC 0"),
        (X86_64, 0x880000000, 0x1000, None),  # Nobody speaks of it.
        (AARCH64, 0x70200000, 0x10000, None),
        # Reserved without no-map stays the kernel's.
        (AARCH64, 0x4F000000, 0x10000, "System RAM"),
        (AARCH64, 0x9000000, 0x1000, "9000000.pl011 pl011@9000000"),
    ],
)
def test_what_is_free(text, start, size, use):
    assert find_use(parse_iomem(text), Range(start, size)) == use


def test_hidden_addresses():
    hidden = "00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n"
    with pytest.raises(FormatError, match="CAP_SYS_ADMIN"):
        parse_iomem(hidden)
    with pytest.raises(FormatError, match="hides"):
        parse_iomem("")


@pytest.mark.parametrize(
    "text", ["what?", "00002000-00001000 : x", "1000-2000 : x", "00001000-00002000"]
)
def test_something_else(text):
    with pytest.raises(FormatError, match="line 2"):
        parse_iomem(f"00001000-0009fbff : System RAM\n{text}\n")
