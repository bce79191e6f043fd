# SPDX-License-Identifier: GPL-2.0-or-later
"""Device trees: what is reserved in them, and for whom."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats.fdt import (
    Node,
    fdt_size,
    parse_fdt,
    reserved_ranges,
)
from kmemdump.lab.fdt_writer import pack_fdt
from kmemdump.memory.ranges import Range
from rigs.writers.fdt import Tree, cells, write_blocks, write_fdt

SMEM = Range(0x86000000, 0x200000)
WIDE: Tree = {"#address-cells": cells(2), "#size-cells": cells(2), "ranges": b""}


def tree(reserved: Tree, **others: Tree) -> Node:
    root: Tree = {"compatible": b"lab,board\0", "reserved-memory": reserved, **others}
    return parse_fdt(write_fdt(root), "tree")


def reg(where: Range) -> bytes:
    return cells(0, where.start, 0, where.size)


def test_a_reserved_node_that_is_the_device() -> None:
    node: Tree = {"compatible": b"qcom,smem\0", "reg": reg(SMEM), "no-map": b""}
    found = tree({**WIDE, "smem@86000000": node})
    assert reserved_ranges(found, "qcom,smem") == [SMEM]
    assert reserved_ranges(found, "qcom,sme") == []


def test_a_device_that_names_its_memory() -> None:
    found = tree(
        {**WIDE, "smem@86000000": {"reg": reg(SMEM), "phandle": cells(7)}},
        smem={"compatible": b"other\0qcom,smem\0", "memory-region": cells(3, 7)},
    )
    assert reserved_ranges(found, "qcom,smem") == [SMEM]


def test_a_device_that_is_disabled() -> None:
    node: Tree = {"compatible": b"a\0", "reg": reg(SMEM), "status": b"disabled\0"}
    assert reserved_ranges(tree({**WIDE, "smem@86000000": node}), "a") == []


def test_cells_that_nobody_counts() -> None:
    """Two for an address and one for a size, as the specification says."""
    found = tree({"smem@1": {"compatible": b"a\0", "reg": cells(0, 0x1000, 0x20)}})
    assert reserved_ranges(found, "a") == [Range(0x1000, 0x20)]


@pytest.mark.parametrize("raw", [b"", b"\0" * 5, cells(1), cells(0, 1, 0, 0)])
def test_memory_without_a_place(raw: bytes) -> None:
    node: Tree = {"compatible": b"a\0", "reg": raw}
    assert reserved_ranges(tree({**WIDE, "smem@1": node}), "a") == []


def test_a_tree_without_reserved_memory() -> None:
    assert reserved_ranges(parse_fdt(write_fdt({}), "tree"), "qcom,smem") == []


def test_what_is_no_tree() -> None:
    good = write_fdt({"chosen": {}})
    for bad in (b"", b"\xd0\x0d\xfe\xee" + good[4:], write_fdt({}, version=16)):
        assert fdt_size(bad) is None
        with pytest.raises(FormatError, match="expected a flattened device tree"):
            parse_fdt(bad, "tree")
    with pytest.raises(FormatError, match="is cut: 60 of"):
        parse_fdt(good[:60], "tree")


def seconds(data: bytes) -> float:
    """What it takes of this process to parse a tree, and to look through it."""
    start = time.process_time()
    reserved_ranges(parse_fdt(data, "tree"), "a")
    return time.process_time() - start


def node(name: str, *properties: tuple[int, bytes]) -> bytes:
    """The beginning of a node; names of properties are places in the strings block."""
    out = cells(1) + name.encode().ljust(4, b"\0")
    for at, value in properties:
        out += cells(3, len(value), at) + value
    return out


STRINGS = b"compatible\0memory-region\0reg\0phandle\0"
COMPATIBLE, REGION, REG, HANDLE = 0, 11, 25, 29


def test_names_without_an_end() -> None:
    """Each of 80,000 properties has a megabyte for a name."""
    properties = b"".join(cells(3, 0, at) for at in range(80_000))
    data = write_blocks(node("") + properties + cells(2, 9), b"x" * (1 << 20) + b"\0")
    with pytest.raises(FormatError, match="no name at 0 of the strings block"):
        parse_fdt(data, "tree")


def test_thousands_of_devices_that_are_reserved() -> None:
    """None of which has a place, so that no limit is ever reached."""
    device = node("d", (COMPATIBLE, b"a\0\0\0")) + cells(2)
    memory = cells(1) + b"reserved-memory\0" + device * 30_000 + cells(2)
    assert seconds(write_blocks(node("") + memory + cells(2, 9), STRINGS)) < 10


def test_thousands_of_devices_that_name_the_same_memory() -> None:
    nothing = node("m", (HANDLE, cells(7)), (REG, bytes(200_000))) + cells(2)
    memory = cells(1) + b"reserved-memory\0" + nothing + cells(2)
    device = node("d", (COMPATIBLE, b"a\0\0\0"), (REGION, cells(7))) + cells(2)
    data = write_blocks(node("") + memory + device * 20_000 + cells(2, 9), STRINGS)
    assert seconds(data) < 10


def test_devices_that_share_memory() -> None:
    user: Tree = {"compatible": b"a\0", "memory-region": cells(7, 7)}
    shared: Tree = {"reg": reg(SMEM), "phandle": cells(7)}
    found = tree({**WIDE, "smem@86000000": shared}, one=user, two=user)
    assert reserved_ranges(found, "a") == [SMEM]


def test_nodes_in_each_other_without_an_end() -> None:
    root: Tree = {}
    for _ in range(70):
        root = {"a": root}
    with pytest.raises(FormatError, match="more than 64 nested nodes"):
        parse_fdt(write_fdt(root), "tree")


names = st.text("abcdefgh-@,#", min_size=1, max_size=12)
trees = st.recursive(
    st.dictionaries(names, st.binary(max_size=40), max_size=4),
    lambda inner: st.dictionaries(names, st.binary(max_size=9) | inner, max_size=4),
    max_leaves=20,
)


def as_tree(node: Node) -> Tree:
    assert len({child.name for child in node.children}) == len(node.children)
    return {**node.properties, **{it.name: as_tree(it) for it in node.children}}


@given(trees)
def test_what_is_written_is_read(root: Tree) -> None:
    assert as_tree(parse_fdt(write_fdt(root), "tree")) == root


@given(trees)
def test_what_is_packed_is_read(root: Tree) -> None:
    node = parse_fdt(write_fdt(root), "tree")
    assert as_tree(parse_fdt(pack_fdt(node), "tree")) == root
