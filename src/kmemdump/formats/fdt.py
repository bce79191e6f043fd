# SPDX-License-Identifier: GPL-2.0-or-later
"""
Flattened device tree (DTB), version 17: the hardware and the reserved memory.

Layout: Devicetree Specification v0.4, chapter 5. All integers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from kmemdump.errors import FormatError
from kmemdump.memory.ranges import ADDRESS_SPACE, Range, round_up

__all__ = [
    "FDT_MAGIC",
    "MAX_FDT",
    "Node",
    "all_reserved_ranges",
    "fdt_size",
    "parse_fdt",
    "reserved_ranges",
]

FDT_MAGIC = bytes.fromhex("d00dfeed")
MAX_FDT = 2 << 20
"""Largest size in bytes that the kernel accepts (arm64: MAX_FDT_SIZE)."""

_HEADER = struct.Struct(">10I")
_VERSION, _COMPATIBLE = 17, 16
_BEGIN, _END_NODE, _PROPERTY, _NOP, _END = 1, 2, 3, 4, 9
_MAX_DEPTH = 64  # FDT_MAX_DEPTH, Linux drivers/of/fdt.c.
_MAX_NAME = 256
"""
Longest name of a property in bytes. The specification allows 31, Linux has no limit; in
a broken tree, the whole strings block may be the name of each property.
"""
_MAX_REGIONS = 64
"""More than any device has; a broken tree may have an endless list of ranges."""
_U32 = struct.Struct(">I")


@dataclass(slots=True)
class Node:
    """A node of the tree."""

    name: str
    """With the unit address, as in ``smem@86000000``; empty for the root."""
    properties: dict[str, bytes] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)

    def child(self, name: str) -> Node | None:
        """Return the child with this name, with or without its unit address."""
        for node in self.children:
            if name in (node.name, node.name.partition("@")[0]):
                return node
        return None

    def walk(self) -> Iterator[Node]:
        """Return this node and all below it."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    def strings(self, name: str) -> list[str]:
        """Return a property that is a list of strings; empty if it is missing."""
        raw = self.properties.get(name, b"")
        return [part.decode("latin-1") for part in raw.split(b"\0") if part]

    def cells(self, name: str) -> tuple[int, ...]:
        """Return a property that is a list of 32-bit cells; empty if it is not."""
        raw = self.properties.get(name, b"")
        if len(raw) % 4:
            return ()
        return struct.unpack(f">{len(raw) // 4}I", raw)

    @property
    def enabled(self) -> bool:
        """Whether the device may be used."""
        return self.strings("status") in ([], ["okay"], ["ok"])


def fdt_size(head: bytes) -> int | None:
    """
    Return the size in bytes of the tree that starts with *head*.

    :return: ``None`` if this is not an acceptable device tree.
    """
    if len(head) < _HEADER.size or not head.startswith(FDT_MAGIC):
        return None
    _, size, *_, version, compatible, _, _, _ = _HEADER.unpack_from(head)
    fits = _HEADER.size <= size <= MAX_FDT
    return size if fits and compatible <= _VERSION <= version else None


def parse_fdt(data: bytes, source: str) -> Node:
    """
    Parse a device tree.

    :param data: May be longer than the tree.
    :return: The root.
    :raises FormatError: If it is not a device tree, or broken.
    """
    size = fdt_size(data)
    if size is None:
        raise FormatError(
            source,
            f"starts with {data[:4].hex(' ')}, expected a flattened device tree "
            f"(d0 0d fe ed) of version {_VERSION} and at most {MAX_FDT} bytes",
        )
    if size > len(data):
        raise FormatError(source, f"is cut: {len(data)} of {size} bytes")
    _, _, struct_at, strings_at, *_, strings_size, struct_size = _HEADER.unpack_from(
        data
    )
    for name, at, length in (
        ("structure", struct_at, struct_size),
        ("strings", strings_at, strings_size),
    ):
        if at + length > size:
            raise FormatError(
                source,
                f"{name} block ends at {at + length}, expected at most {size}",
            )
    block = data[struct_at : struct_at + struct_size]
    strings = data[strings_at : strings_at + strings_size]
    return _Reader(block, strings, source).read_tree()


class _Reader:
    def __init__(self, block: bytes, strings: bytes, source: str) -> None:
        self._block = block
        self._strings = strings
        self._source = source
        self._at = 0

    def read_tree(self) -> Node:
        path: list[Node] = []
        while True:
            token = self._word()
            if token == _NOP:
                continue
            if token == _BEGIN:
                node = Node(self._name())
                if len(path) >= _MAX_DEPTH:
                    raise self._error(f"more than {_MAX_DEPTH} nested nodes")
                if path:
                    path[-1].children.append(node)
                path.append(node)
            elif token == _PROPERTY and path:
                size, name_at = self._word(), self._word()
                value = self._bytes(size)
                path[-1].properties[self._string(name_at)] = value
            elif token == _END_NODE and path:
                node = path.pop()
                if not path:
                    return node  # There is only one root.
            else:
                raise self._error(f"unexpected token {token}")

    def _word(self) -> int:
        try:
            (value,) = _U32.unpack_from(self._block, self._at)
        except struct.error:
            raise self._error("ends in the middle") from None
        self._at += 4
        return int(value)

    def _bytes(self, size: int) -> bytes:
        if size > len(self._block) - self._at:
            raise self._error(f"property of {size} bytes")
        value = self._block[self._at : self._at + size]
        self._at += round_up(size, 4)
        return value

    def _name(self) -> str:
        end = self._block.find(b"\0", self._at)
        if end < 0:
            raise self._error("name without an end")
        name = self._block[self._at : end].decode("latin-1")
        self._at = round_up(end + 1, 4)
        return name

    def _string(self, at: int) -> str:
        end = self._strings.find(b"\0", at, at + _MAX_NAME + 1)
        if at >= len(self._strings) or end < 0:
            raise self._error(f"no name at {at} of the strings block")
        return self._strings[at:end].decode("latin-1")

    def _error(self, problem: str) -> FormatError:
        return FormatError(f"{self._source}: structure block+{self._at:#x}", problem)


def reserved_ranges(root: Node, compatible: str) -> list[Range]:
    """
    Return the reserved memory of a device, in the order of the tree.

    The device is a child of ``/reserved-memory``, or refers to such children with
    ``memory-region``.

    :param compatible: Property of the device's node.
    """
    memory = root.child("reserved-memory")
    if memory is None:
        return []
    cells = _cells(memory)
    # Each child is used once: all devices of a broken tree may refer to one.
    unused = {id(node): node for node in memory.children}
    by_handle = {node.cells("phandle"): id(node) for node in memory.children}
    found: list[Range] = []
    for node in root.walk():
        if compatible not in node.strings("compatible") or not node.enabled:
            continue
        handles = node.cells("memory-region")[:_MAX_REGIONS]
        named = [by_handle[handle,] for handle in handles if (handle,) in by_handle]
        for region in (id(node), *named):
            if region in unused:
                ranges = _reg(unused.pop(region), *cells)
                found.extend(islice(ranges, _MAX_REGIONS))
        if len(found) >= _MAX_REGIONS:
            break
    return found[:_MAX_REGIONS]


def all_reserved_ranges(root: Node) -> list[Range]:
    """Return the memory that a tree reserves, whatever it is for."""
    memory = root.child("reserved-memory")
    if memory is None:
        return []
    cells = _cells(memory)
    found = (it for node in memory.children for it in _reg(node, *cells))
    return list(islice(found, _MAX_REGIONS))


def _cells(node: Node) -> tuple[int, int]:
    """Return the number of cells of an address and a size in the node's children."""
    address, size = node.cells("#address-cells"), node.cells("#size-cells")
    # The defaults of the specification, section 2.3.5.
    return (address or (2,))[0], (size or (1,))[0]


def _reg(node: Node, address_cells: int, size_cells: int) -> Iterator[Range]:
    raw = node.properties.get("reg", b"")
    if not (1 <= address_cells <= 2 and 1 <= size_cells <= 2) or len(raw) % 4:
        return
    step = 4 * (address_cells + size_cells)
    for at in range(0, len(raw) - step + 1, step):
        middle = at + 4 * address_cells
        start = int.from_bytes(raw[at:middle], "big")
        size = int.from_bytes(raw[middle : at + step], "big")
        if size and start + size <= ADDRESS_SPACE:
            yield Range(start, size)
