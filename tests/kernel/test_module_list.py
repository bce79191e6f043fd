# SPDX-License-Identifier: GPL-2.0-or-later
"""The list of modules, found by its contents; test_partial_symbols.py has real ones."""

import struct
from itertools import pairwise

import pytest

from kmemdump.formats.btf import parse_btf
from kmemdump.kernel import module_list
from kmemdump.kernel.module_list import find_module_list
from kmemdump.memory.physical import PageMemory
from kmemdump.vmcoreinfo import VmcoreInfo
from rigs.btf_writer import BtfWriter
from rigs.synthetic import vmcoreinfo

START = 0xFFFFFFFF81000000
HEAD = START + 0x800
MODULES = (0xFFFFFFFFC0000040, 0xFFFFFFFFC0010040)
LIST, KOBJECT = 8, 64 + 96
"""Offsets in struct module: of its list, and of the pointer to itself."""
INFO = VmcoreInfo.parse(vmcoreinfo(), "test")


def types(*names: str):
    writer = BtfWriter()
    word = writer.integer("long", 8)
    inner = writer.struct("module_kobject", 104, [("mod", word, 96 * 8)])
    members = {"list": (word, LIST * 8), "mkobj": (inner, 64 * 8)}
    writer.struct("module", 512, [(name, *members[name]) for name in names])
    return parse_btf(writer.bytes(), "test")


BTF = types("list", "mkobj")


def links(head: int, members: tuple[int, ...]) -> dict[int, int]:
    """Return the words of a list and of its members, by address."""
    circle = [head, *(it + LIST for it in members), head]
    words = dict(pairwise(circle))
    words |= {at + 8: before for before, at in pairwise(circle)}
    return words | {it + KOBJECT: it for it in members}


def find(monkeypatch: pytest.MonkeyPatch, words: dict[int, int], btf=BTF) -> int | None:
    image = bytearray(0x2000)
    for at, word in words.items():
        if START <= at < START + len(image):
            struct.pack_into("<Q", image, at - START, word)
    monkeypatch.setattr(module_list, "_reader", lambda *_: words.get)
    memory = PageMemory({})
    return find_module_list(INFO, memory, START, bytes(image), START + 0x1000, btf)


@pytest.mark.parametrize("count", [1, 2])
def test_the_list_is_found(monkeypatch, count):
    members = 0xFFFF888000001000, 0xFFFF888000002000
    other = links(START + 0x100, members)
    for member in members:  # Of something else, which does not point to itself.
        del other[member + KOBJECT]
    words = other | links(HEAD, MODULES[:count])
    assert find(monkeypatch, words) == HEAD


@pytest.mark.parametrize(
    "changed",
    [
        {HEAD: START + 0x40},  # In the image.
        {MODULES[0] + LIST + 8: HEAD + 16},  # Not back to the head.
        {MODULES[1] + LIST: HEAD + 16},
        {MODULES[0] + KOBJECT: MODULES[1]},  # Not to itself.
        {MODULES[1] + KOBJECT: 0},
    ],
)
def test_what_is_not_proven(monkeypatch, changed):
    assert find(monkeypatch, links(HEAD, MODULES) | changed) is None


def test_two_lists_that_are_both_right(monkeypatch):
    others = tuple(it + 0x100000 for it in MODULES)
    words = links(HEAD, MODULES) | links(START + 0x900, others)
    assert find(monkeypatch, words) is None


@pytest.mark.parametrize(
    "btf", [types("list"), types(), parse_btf(BtfWriter().bytes(), "test")]
)
def test_types_that_lack_members(monkeypatch, btf):
    assert find(monkeypatch, links(HEAD, MODULES), btf) is None


def test_no_module(monkeypatch):
    assert find(monkeypatch, {HEAD: HEAD, HEAD + 8: HEAD}) is None
