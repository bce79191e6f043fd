# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of a kernel's log and modules decides what is left of them."""

from types import SimpleNamespace

from kmemdump.memory.physical import PAGE_SIZE, PageMemory
from kmemdump.memory.ranges import Range
from kmemdump.redaction.changed import ChangedMemory
from kmemdump.redaction.known import log
from kmemdump.redaction.places import Places
from kmemdump.redaction.policy import load_policy
from kmemdump.redaction.reads import ByteRecorder
from kmemdump.redaction.render import render
from kmemdump.redaction.text import Masker
from rigs.printk_ring import INFO, INFO_SIZE, INFOS, TEXT, Writer

PHYSICAL = (1 << 40) - 1
"""These bits of an address are where it is in physical memory."""


def left_of(pieces, find):
    """Return a reader of what is left of a memory that was read in large pieces."""
    pages = {}
    for address, data in pieces.items():
        for i, byte in enumerate(data):
            page, at = divmod((address & PHYSICAL) + i, PAGE_SIZE)
            pages.setdefault(page, bytearray(PAGE_SIZE))[at] = byte
    memory = PageMemory({page: bytes(data) for page, data in pages.items()})
    recorder = ByteRecorder(memory)

    def read(address, count):
        return recorder.read(address & PHYSICAL, count, 0, True)

    def no_symbol(name):
        raise LookupError(name)

    prog = SimpleNamespace(read=read, symbol=no_symbol)
    for address, data in pieces.items():
        read(address, len(data))
    places = Places(SimpleNamespace(prog=prog, vmcoreinfo=INFO), recorder)
    with recorder.unnoticed():
        find(places)
    changed = ChangedMemory(memory)
    masker = Masker(load_policy("strict"))
    render(
        changed, memory.ranges, recorder, places.known, masker, lambda it: it >> 47 != 0
    )
    return lambda address, count: changed.read(address & PHYSICAL, count)


def test_nothing_is_left_between_the_texts_of_a_log():
    """
    As behind a text whose level or newline was cut off: its last letters once more.

    Two letters alone would look like a small number.
    """
    writer = Writer(3, 8)
    desc = writer.write("disk sda removeded\n")
    desc.length = len("disk sda removed")
    pieces = writer.pieces()
    pieces[TEXT] = pieces[TEXT].replace(b"\xa5", b"\0")
    infos = bytearray(pieces[INFOS])
    infos[INFO_SIZE - 8 : INFO_SIZE - 6] = b"od"  # The end of a program's name.
    read = left_of({**pieces, INFOS: bytes(infos)}, log)
    begin = TEXT + desc.begin % writer.size
    assert read(begin, 32) == pieces[TEXT][:8] + b"xxxx xxx xxxxxxx" + bytes(8)
    assert read(INFOS, INFO_SIZE)[-8:] == bytes(8)


KEPT = b"drivers/net/dummy.c\0/dev/null\0%s: /no.c %d\0"
GONE = b"/home/alice/new driver/main.c\0../../bob/it.rs\0"
LEFT = b"/xxxx/xxxxx/xxx xxxxxx/xxxx.x\0../../xxx/xx.xx\0"


def test_of_a_module_the_folder_where_it_was_built_goes():
    start = 0xFFFFFFFFC0000000 + PAGE_SIZE - len(KEPT) - 10  # Ends in the next page.
    pieces = {start - 1: b"\0" + KEPT + GONE + bytes(PAGE_SIZE)}
    read = left_of(pieces, lambda places: places.constants(start - 1, 2 * PAGE_SIZE))
    assert read(start, len(KEPT + GONE)) == KEPT + LEFT


def test_of_the_image_the_folder_where_it_was_built_goes():
    """Also of a path whose beginning was not captured."""
    pieces = {PAGE_SIZE: b"ce/linux/x.c\0" + KEPT + GONE + bytes(PAGE_SIZE)}
    place = Range(PAGE_SIZE, 1 << 62)
    read = left_of(pieces, lambda places: places.image_constants(place))
    assert read(PAGE_SIZE, 13 + len(KEPT)) == b"xx/xxxxx/x.x\0" + KEPT
    assert read(PAGE_SIZE + 13 + len(KEPT), len(GONE)) == LEFT
