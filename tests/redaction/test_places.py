# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of virtual memory is noted where it is captured."""

import struct
from types import SimpleNamespace

from drgn import (
    Architecture,
    FaultError,
    Object,
    Platform,
    PlatformFlags,
    Program,
    TypeMember,
)

from kmemdump.memory.physical import PAGE_SIZE, PageMemory
from kmemdump.redaction.places import Known, Places
from kmemdump.redaction.reads import ByteRecorder, TextRun

VIRTUAL = 0xFFFF888000000000


class FakeProgram:
    """Reads through a page table that is a dictionary, as drgn does."""

    def __init__(self, recorder, table):
        self.recorder, self.table = recorder, table

    def read(self, address, count):
        page, low = divmod(address - VIRTUAL, PAGE_SIZE)
        if page not in self.table:
            raise FaultError("not mapped", address)
        physical = self.table[page] * PAGE_SIZE + low
        return self.recorder.read(physical, count, 0, True)

    def symbol(self, name):
        raise LookupError(name)


def noted(table, pages, note) -> Known:
    """Return what is noted of a memory with these pages."""
    recorder = ByteRecorder(PageMemory(pages))
    places = Places(SimpleNamespace(prog=FakeProgram(recorder, table)), recorder)
    note(places)
    return places.known


def test_a_line_of_the_log_that_ends_in_the_next_page_is_one_text():
    """Or no pattern would find what is in both."""
    pages = {5: b"a" * PAGE_SIZE, 6: b"b" * PAGE_SIZE}
    known = noted(
        {0: 5, 1: 6}, pages, lambda it: it.text("log-text", VIRTUAL + 4090, 20)
    )
    assert known.texts == [TextRun(5 * PAGE_SIZE + 4090, 20, "log-text")]


def test_pages_that_are_no_neighbours_have_a_text_each():
    pages = {5: b"a" * PAGE_SIZE, 8: b"b" * PAGE_SIZE}
    known = noted({0: 8, 1: 5}, pages, lambda it: it.text("paths", VIRTUAL + 4090, 20))
    assert known.texts == [
        TextRun(8 * PAGE_SIZE + 4090, 6, "paths"),
        TextRun(5 * PAGE_SIZE, 14, "paths"),
    ]


def test_a_string_ends_with_its_nul_and_where_nothing_is_captured():
    pages = {5: b"a" * PAGE_SIZE, 6: b"bc\0d".ljust(PAGE_SIZE)}
    known = noted(
        {0: 5, 1: 6}, pages, lambda it: it.string("paths", VIRTUAL + 4000, 4096)
    )
    assert known.texts == [TextRun(5 * PAGE_SIZE + 4000, 99, "paths")]
    known = noted({0: 5}, pages, lambda it: it.string("paths", VIRTUAL + 4000, 4096))
    assert known.texts == [TextRun(5 * PAGE_SIZE + 4000, 96, "paths")]


def test_a_dentry_says_where_its_name_is():
    """Names of one character, of which "/" is one, are read as no text."""
    flags = PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN
    prog = Program(Platform(Architecture.X86_64, flags))
    data = struct.pack("<QQ", 1, VIRTUAL + 16) + b"/\0old name"
    recorder = ByteRecorder(PageMemory({5: data.ljust(PAGE_SIZE, b"\0")}))
    prog.add_memory_segment(
        VIRTUAL,
        PAGE_SIZE,
        lambda _, count, offset, __: recorder.read(
            5 * PAGE_SIZE + offset, count, 0, True
        ),
    )
    char, size = prog.int_type("char", 1, True), prog.int_type("long", 8, False)
    name = prog.struct_type(
        "qstr",
        16,
        (TypeMember(size, "len"), TypeMember(prog.pointer_type(char), "name", 64)),
    )
    inline = TypeMember(prog.array_type(char, 32), "d_iname", 128)
    dentry = prog.struct_type("dentry", 48, (TypeMember(name, "d_name"), inline))
    places = Places(SimpleNamespace(prog=prog), recorder)
    places.object(Object(prog, dentry, address=VIRTUAL))
    assert places.known.texts == [TextRun(5 * PAGE_SIZE + 16, 2, "paths")]
