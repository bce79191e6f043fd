# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes of trees are found whatever is in their slots."""

import struct

import pytest
from drgn import (
    Architecture,
    FaultError,
    Object,
    Platform,
    PlatformFlags,
    Program,
    TypeKind,
    TypeMember,
)

from kmemdump.areas.crash_trees import tree_nodes

BASE = 0xFFFF888000000000
SIZE = 0x4000
_FLAGS = PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN
LEAF, RANGE, ARANGE = 1, 2, 3
"""Types of nodes of a maple tree: enum maple_type."""


class Memory:
    """Memory with a tree, and types as far as they are needed."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)
        self.prog = Program(Platform(Architecture.X86_64, _FLAGS))
        self.prog.register_type_finder("test", self._find, enable_index=0)
        self.prog.add_memory_segment(BASE, SIZE, self._read)

    def _read(self, address, count, offset, physical):
        if offset + count > SIZE:
            raise FaultError("unmapped", address)
        return bytes(self.data[offset : offset + count])

    def _find(self, prog, kinds, name, filename):
        if TypeKind.STRUCT not in kinds:
            return None
        pointer = prog.pointer_type(prog.void_type())

        def slots(count):
            return prog.array_type(pointer, count)

        match name:
            case "maple_node":
                range_64 = prog.struct_type(
                    "maple_range_64", 256, (TypeMember(slots(16), "slot", 128 * 8),)
                )
                arange_64 = prog.struct_type(
                    "maple_arange_64", 240, (TypeMember(slots(10), "slot", 80 * 8),)
                )
                members = (TypeMember(range_64, "mr64"), TypeMember(arange_64, "ma64"))
                return prog.struct_type(name, 256, members)
            case "xa_node":
                byte = prog.int_type("unsigned char", 1, False)
                members = (
                    TypeMember(byte, "shift"),
                    TypeMember(slots(64), "slots", 64),
                )
                return prog.struct_type(name, 520, members)
            case "maple_tree" | "xarray":
                root = "ma_root" if name == "maple_tree" else "xa_head"
                return prog.struct_type(name, 8, (TypeMember(pointer, root),))
        return None

    def put(self, offset, *words):
        for i, word in enumerate(words):
            struct.pack_into("<Q", self.data, offset + 8 * i, word)

    def found(self, kind):
        """Return the offsets of the nodes of the tree at the beginning."""
        tree = Object(self.prog, f"struct {kind}", address=BASE)
        return sorted(node.address_ - BASE for node in tree_nodes(tree))


@pytest.fixture
def memory() -> Memory:
    return Memory()


def maple(offset, kind):
    """Return an entry of a node: mt_mk_node()."""
    return BASE + offset | kind << 3 | 4


def test_a_maple_tree(memory):
    memory.put(0, maple(0x100, ARANGE) | 2)
    memory.put(0x100 + 80, maple(0x200, RANGE), maple(0x300, LEAF), 0)
    memory.put(0x200 + 128, maple(0x400, LEAF), maple(0x500, LEAF))
    # What leaves lead to is no node.
    memory.put(0x400 + 128, BASE + 0x1000, maple(0x1100, LEAF))
    assert memory.found("maple_tree") == [0x100, 0x200, 0x300, 0x400, 0x500]


def test_an_xarray(memory):
    memory.put(0, BASE + 0x400 | 2)
    memory.put(0x400, 6, BASE + 0x800 | 2, 0, BASE + 0x1000 | 2)
    memory.put(0x800, 0, BASE + 0x3000, BASE + 0x3002)  # Of which one is no pointer.
    assert memory.found("xarray") == [0x400, 0x800, 0x1000]


@pytest.mark.parametrize("kind", ["maple_tree", "xarray"])
@pytest.mark.parametrize("root", [0, 2, 1026, BASE + 0x100])
def test_a_tree_without_nodes(memory, kind, root):
    memory.put(0, root)
    assert memory.found(kind) == []


def test_a_damaged_tree_ends(memory):
    memory.put(0, maple(0x100, RANGE) | 2)
    memory.put(0x100 + 128, maple(0x100, RANGE), maple(0x200, RANGE))
    nowhere = maple(SIZE, RANGE)
    memory.put(0x200 + 128, nowhere, maple(0x200, LEAF), maple(0x300, LEAF))
    assert memory.found("maple_tree") == [0x100, 0x200, 0x300, SIZE]


def test_a_tree_whose_first_node_is_missing(memory):
    memory.put(0, maple(SIZE, RANGE) | 2)
    with pytest.raises(FaultError):
        memory.found("maple_tree")
