# SPDX-License-Identifier: GPL-2.0-or-later
"""Flattened device trees, as dtc writes them."""

Tree = dict[str, "bytes | Tree"]
"""A node: names of properties to bytes, names of children to nodes."""


def write_fdt(root: Tree, *, version: int = 17) -> bytes:
    names = sorted(_properties(root))
    offsets, strings = {}, b""
    for name in names:
        offsets[name] = len(strings)
        strings += name.encode() + b"\0"
    return write_blocks(_node("", root, offsets) + _u32(9), strings, version=version)


def write_blocks(structure: bytes, strings: bytes, *, version: int = 17) -> bytes:
    """Return a tree from its two finished blocks."""
    reservations = bytes(16)
    begin = 40 + len(reservations)
    end = begin + len(structure) + len(strings)
    words = (0xD00DFEED, end, begin, begin + len(structure), 40, version, 16, 0)
    head = b"".join(map(_u32, (*words, len(strings), len(structure))))
    return head + reservations + structure + strings


def cells(*values: int) -> bytes:
    return b"".join(map(_u32, values))


def _node(name: str, node: Tree, offsets: dict[str, int]) -> bytes:
    out = _u32(1) + _pad(name.encode() + b"\0") + _u32(4)  # A NOP, as fdtput leaves it.
    for key, value in node.items():
        if isinstance(value, bytes):
            out += _u32(3) + _u32(len(value)) + _u32(offsets[key]) + _pad(value)
    for key, value in node.items():
        if isinstance(value, dict):
            out += _node(key, value, offsets)
    return out + _u32(2)


def _properties(node: Tree) -> set[str]:
    found = {key for key, value in node.items() if isinstance(value, bytes)}
    for value in node.values():
        if isinstance(value, dict):
            found |= _properties(value)
    return found


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _pad(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
