# SPDX-License-Identifier: GPL-2.0-or-later
"""``Raw_Dmp!`` images."""

import pytest

from kmemdump.errors import FormatError
from kmemdump.formats.rawdump import Rawdump, RawdumpSection, parse_rawdump
from rigs.writers import put
from rigs.writers.rawdump import Sect, write_rawdump

SECTIONS = [
    Sect("OCIMEM.BIN", b"o" * 100, 0x14680000),
    Sect("DDRCS0.BIN", b"d" * 200, 0x80000000, type=1),
    Sect("md_KELF.BIN", b"k" * 33, 0x9FE00000),
    Sect("reason", b"r" * 16, 5, type=4),
]


def parse(data: bytes) -> Rawdump:
    return parse_rawdump(lambda at, count: data[at : at + count], len(data), "dump")


def test_sections() -> None:
    data = write_rawdump(SECTIONS)
    image = parse(data)
    assert image.problems == ()
    first = 56 + 4 * 64
    assert image.sections[0] == RawdumpSection(
        "OCIMEM.BIN", 3, first, 100, 100, 0x14680000
    )
    assert image.sections[3].address is None
    for section, written in zip(image.sections, SECTIONS, strict=True):
        assert data[section.offset : section.offset + section.held] == written.data


def test_used_image() -> None:
    assert len(parse(write_rawdump(SECTIONS, magic=b"MiniDump")).sections) == 4


def test_truncated() -> None:
    data = write_rawdump(SECTIONS)
    image = parse(data[:-20])
    assert [it.held for it in image.sections] == [100, 200, 29, 0]
    assert image.problems[0].startswith("section 2 (md_KELF.BIN) has 29 of 33 bytes")
    assert "section 3 (reason) has 0 of 16" in image.problems[1]


def test_problems() -> None:
    image = parse(write_rawdump([Sect("a", b"x" * 8, flags=2)], flags=2))
    assert "not marked as valid" in image.problems[0]
    assert "storage was too small" in image.problems[1]
    assert "section 0 (a) is not valid (flags 0x2)" in image.problems[2]
    assert image.sections[0].held == 0
    image = parse(write_rawdump([Sect("a", b"x" * 8, (1 << 64) - 4)]))
    assert image.sections[0].address is None
    assert "wraps around" in image.problems[0]


def test_refused() -> None:
    with pytest.raises(FormatError, match="expected 52 61 77"):
        parse(bytes(100))
    data = bytearray(write_rawdump(SECTIONS))
    with pytest.raises(FormatError, match="4 sections need 256 bytes"):
        parse(bytes(data[:200]))
    put(data, 52, 4, 1 << 31)
    with pytest.raises(FormatError, match="2147483648 sections"):
        parse(bytes(data))
