# SPDX-License-Identifier: GPL-2.0-or-later
"""
Write flattened device trees (DTB), for machines with reserved memory.

Layout: Devicetree Specification v0.4, chapter 5.
"""

from __future__ import annotations

import struct

from kmemdump.formats.fdt import FDT_MAGIC, Node

__all__ = ["pack_fdt"]

_HEADER = struct.Struct(">10I")
_U32 = struct.Struct(">I")
_VERSION, _COMPATIBLE = 17, 16
_BEGIN, _END_NODE, _PROPERTY, _END = 1, 2, 3, 9
_NO_RESERVATIONS = bytes(16)  # Only the entry that ends the memory reservation block.


def pack_fdt(root: Node) -> bytes:
    """Return the bytes of a tree, with an empty memory reservation block."""
    strings = bytearray()
    places: dict[str, int] = {}
    block = bytearray()

    def add(node: Node) -> None:
        block.extend(_U32.pack(_BEGIN) + _padded(node.name.encode("latin-1") + b"\0"))
        for name, value in node.properties.items():
            if name not in places:
                places[name] = len(strings)
                strings.extend(name.encode("latin-1") + b"\0")
            block.extend(struct.pack(">3I", _PROPERTY, len(value), places[name]))
            block.extend(_padded(value))
        for child in node.children:
            add(child)
        block.extend(_U32.pack(_END_NODE))

    add(root)
    block.extend(_U32.pack(_END))
    struct_at = _HEADER.size + len(_NO_RESERVATIONS)
    strings_at = struct_at + len(block)
    header = _HEADER.pack(
        int.from_bytes(FDT_MAGIC),
        strings_at + len(strings),
        struct_at,
        strings_at,
        _HEADER.size,
        _VERSION,
        _COMPATIBLE,
        0,
        len(strings),
        len(block),
    )
    return header + _NO_RESERVATIONS + bytes(block) + bytes(strings)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
