# SPDX-License-Identifier: GPL-2.0-or-later
"""ELF cores. The cores here are packed by hand, and not with the parser's tables."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats import elf

IDENT = bytes.fromhex("7f454c46 02 01 01 00") + bytes(8)
U16, U32, U64 = "<H", "<I", "<Q"


def ehdr(**changes: int) -> bytearray:
    """Return an ELF header: System V ABI, figure 4-3."""
    data = bytearray(64)
    data[:16] = IDENT
    fields = {  # Offset and type of each.
        "type": (16, U16, 4),
        "machine": (18, U16, 62),
        "version": (20, U32, 1),
        "phoff": (32, U64, 64),
        "shoff": (40, U64, 0),
        "ehsize": (52, U16, 64),
        "phentsize": (54, U16, 56),
        "phnum": (56, U16, 0),
        "shentsize": (58, U16, 0),
        "shnum": (60, U16, 0),
    }
    for name, (offset, format_, default) in fields.items():
        struct.pack_into(format_, data, offset, changes.pop(name, default))
    assert not changes
    return data


def phdr(type_: int, flags: int, *rest: int) -> bytes:
    assert len(rest) == 6
    words = [type_ | flags << 32, *rest]
    return b"".join(word.to_bytes(8, "little") for word in words)


def note(name: bytes, type_: int, desc: bytes) -> bytes:
    words = (len(name), len(desc), type_)
    data = b"".join(word.to_bytes(4, "little") for word in words)
    data += name + bytes(-len(name) % 4)
    return data + desc + bytes(-len(desc) % 4)


NOTES = note(b"CORE\0", 1, b"registers") + note(b"VMCOREINFO\0", 0, b"OSRELEASE=6\n")
NOTES_AT = 64 + 2 * 56
CORE = bytes(
    ehdr(phnum=2)
    + phdr(4, 0, NOTES_AT, 0, 0, len(NOTES), len(NOTES), 4)
    + phdr(1, 7, 4096, 0xFFFF888000001000, 0x1000, 8192, 8192, 0)
    + NOTES
)


def parse(data: bytes) -> elf.ElfCore:
    return elf.parse_core(
        lambda offset, count: data[offset : offset + count], len(data), "x.core"
    )


def test_parse() -> None:
    core = parse(CORE)
    assert core.machine == elf.EM_X86_64
    assert core.headers[1] == elf.ProgramHeader(
        elf.PT_LOAD, 7, 4096, 0xFFFF888000001000, 0x1000, 8192, 8192, 0
    )
    assert core.notes == [
        elf.Note("CORE", elf.NT_PRSTATUS, b"registers"),
        elf.Note("VMCOREINFO", 0, b"OSRELEASE=6\n"),
    ]


def test_pack() -> None:
    core = parse(CORE)
    packed = elf.pack_header(core.machine, core.headers)
    notes = [elf.pack_note(item.name, item.type, item.desc) for item in core.notes]
    assert packed + b"".join(notes) == CORE
    assert elf.header_size(2) == len(packed)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "the ELF header should be at 0x0 to 0x40, but the file ends at 0x0"),
        (b"KDUMP   " + bytes(64), "starts with 4b 44 55 4d"),
        (b"\x7fELF\x01\x01\x01" + bytes(64), "ELF class 1"),
        (b"\x7fELF\x02\x02\x01" + bytes(64), "byte order 2"),
        (bytes(ehdr(type=2)), "of type 2, expected a core"),
        (bytes(ehdr(phnum=1, phentsize=32)), "e_phentsize: is 32, expected 56"),
        (bytes(ehdr(phnum=1)), "the program headers should be at 0x40 to 0x78"),
        (bytes(ehdr(phnum=1, phoff=2**64 - 1)), "should be at 0xffffffffffffffff"),
        (bytes(ehdr(phnum=0xFFFF)), "e_shentsize: is 0"),
        (bytes(ehdr(phnum=0xFFFF, shentsize=64, shoff=64)), "section header 0"),
        (CORE[:-1], "the notes should be at"),
        (bytes(ehdr(phnum=1) + phdr(4, 0, 0, 0, 0, 1 << 40, 0, 0)), "bytes of notes"),
    ],
)
def test_refuse(data: bytes, problem: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse(data)
    assert str(caught.value).startswith("x.core: ")
    assert problem in str(caught.value)


def test_refuse_too_many_headers() -> None:
    section = bytearray(64)
    struct.pack_into(U32, section, 44, elf.MAX_HEADERS + 1)  # sh_info
    header = ehdr(phnum=0xFFFF, shentsize=64, shoff=64, phoff=128)
    with pytest.raises(FormatError, match="1048577 program headers, expected at most"):
        parse(bytes(header + section))


def test_refuse_short_read() -> None:
    with pytest.raises(FormatError, match="read 10 of 64 bytes at 0x0"):
        elf.parse_core(lambda offset, count: bytes(10), 4096, "x.core")


@pytest.mark.parametrize("count", [0xFFFE, 0xFFFF, 70_000])
def test_extended_numbering(count: int) -> None:
    load = elf.ProgramHeader(elf.PT_LOAD, 7, 0, 1 << 63, 0, 0, 0, 0)
    data = elf.pack_header(elf.EM_AARCH64, [load] * count)
    assert len(data) == elf.header_size(count)
    assert struct.unpack_from(U16, data, 56)[0] == min(count, 0xFFFF)
    core = parse(data)
    assert core.machine == elf.EM_AARCH64
    assert core.headers == [load] * count


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\1" * 5, "5 bytes left"),
        (note(b"CORE\0", 1, b"12345678")[:-1], "only 15 bytes left"),
        (struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 1), "a name of 4294967295"),
    ],
)
def test_refuse_notes(data: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        list(elf.iter_notes(data, "x"))


def test_pass_over_broken_notes() -> None:
    """A dying CPU's note costs no more than that note."""
    first, last = note(b"CORE\0", 1, b"\1" * 9), note(b"VMCOREINFO\0", 0, b"A=1")
    inside = note(b"CORE\0", 1, b"\2" * 40)  # Looks like a note, and is too long.
    lying = struct.pack("<III", 5, 0xFFFFFFF0, 1) + b"CORE\0\0\0\0" + bytes(64)
    data = first + lying + inside[:8] + lying + last
    problems: list[str] = []
    found = list(elf.iter_notes(data, "x", problems=problems))
    assert found == [
        elf.Note("CORE", 1, b"\1" * 9),
        elf.Note("VMCOREINFO", 0, b"A=1"),
    ]
    assert problems[0].startswith(
        f"x+{len(first):#x}: note with a name of 5 and a desc of 4294967280 bytes"
    )
    assert len(problems) in (1, 2)


def test_refuse_notes_that_are_all_broken() -> None:
    lying = struct.pack("<III", 5, 0xFFFFFFF0, 1) + b"CORE\0\0\0\0"
    good = note(b"CORE\0", 1, b"1")
    with pytest.raises(FormatError, match="a desc of 4294967280"):
        list(elf.iter_notes((lying + good) * 100, "x", problems=[]))


def test_notes_end() -> None:
    """Zeros are padding, and the padding of the last note may be missing."""
    data = note(b"CORE\0", 1, b"1") + bytes(17) + bytes(3)
    assert [item.desc for item in elf.iter_notes(data, "x")] == [b"1"]
    assert list(elf.iter_notes(note(b"A\0", 9, b"12345")[:-3], "x")) == [
        elf.Note("A", 9, b"12345")
    ]


@given(
    st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=20),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=50),
)
def test_note_round_trip(name: str, type_: int, desc: bytes) -> None:
    data = elf.pack_note(name, type_, desc)
    assert data == note(name.encode() + b"\0", type_, desc)
    assert list(elf.iter_notes(data, "x")) == [elf.Note(name, type_, desc)]


@given(st.binary(max_size=300))
def test_any_bytes(tail: bytes) -> None:
    for data in (tail, IDENT + tail, bytes(ehdr(phnum=1)) + tail):
        try:
            parse(data)
        except FormatError:
            continue


@given(
    st.lists(st.tuples(st.integers(0, len(CORE) - 1), st.integers(0, 255)), max_size=8),
    st.integers(0, len(CORE)),
)
def test_any_damage(changes: list[tuple[int, int]], size: int) -> None:
    data = bytearray(CORE)
    for offset, value in changes:
        data[offset] = value
    for damaged in (bytes(data), bytes(data[:size])):
        try:
            parse(damaged)
        except FormatError:
            continue
