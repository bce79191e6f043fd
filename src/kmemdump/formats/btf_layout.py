# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes and offsets of the kernel's structures, out of its BTF."""

from __future__ import annotations

from kmemdump.errors import FormatError
from kmemdump.formats.btf import Btf, BtfKind, BtfMember, BtfType

__all__ = ["BtfLayout"]

_STRUCTS = {BtfKind.STRUCT, BtfKind.UNION}
_NAMED = {*_STRUCTS, BtfKind.TYPEDEF}
_ALIASES = {
    BtfKind.TYPEDEF,
    BtfKind.VOLATILE,
    BtfKind.CONST,
    BtfKind.RESTRICT,
    BtfKind.TYPE_TAG,
}
_SIZED = {*_STRUCTS, BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64, BtfKind.FLOAT}
_POINTER = 8
_MAX_DEPTH = 32
"""Types within types; damaged BTF has circles."""


class BtfLayout:
    """
    Answers for the macros ``SIZE``, ``OFFSET`` and ``LENGTH`` of VMCOREINFO.

    Each method returns ``None`` if the kernel has no such type, member or constant.
    """

    def __init__(self, btf: Btf) -> None:
        self._btf = btf

    def size(self, name: str) -> int | None:
        """Return the size in bytes of a structure, a union or a typedef."""
        found = self._btf.find(name, _NAMED)
        return None if found is None else self._size(found, 0)

    def offset(self, name: str, member: str) -> int | None:
        """Return the offset in bytes of a member, which may be in an anonymous one."""
        found = self._member(name, member)
        return None if found is None or found[0] % 8 else found[0] // 8

    def length(self, name: str, member: str) -> int | None:
        """Return the number of elements of a member that is an array."""
        found = self._member(name, member)
        if found is None:
            return None
        type = self._resolved(found[1])
        return self._btf.array(type)[1] if type.kind is BtfKind.ARRAY else None

    def constant(self, name: str) -> int | None:
        """Return the value of an enumerator."""
        found = self._btf.find_enumerator(name)
        if found is None:
            return None
        type_id, index = found
        values = list(self._btf.enumerator_values(self._btf.type(type_id)))
        return values[index][1] if index < len(values) else None

    def _member(self, name: str, member: str) -> tuple[int, int] | None:
        """Return the offset of a member in bits, and its type."""
        found = self._btf.find(name, _STRUCTS)
        if found is None:
            return None
        return self._search(self._btf.type(found), member, 0, 0)

    def _search(
        self, type: BtfType, member: str, bits: int, depth: int
    ) -> tuple[int, int] | None:
        if depth > _MAX_DEPTH:
            raise FormatError(self._btf.source, "BTF: a structure that contains itself")
        anonymous: list[BtfMember] = []
        for item in self._btf.members(type):
            if item.name == member:
                return bits + item.bit_offset, item.type
            if not item.name:
                anonymous.append(item)
        for item in anonymous:
            inner = self._resolved(item.type)
            if inner.kind in _STRUCTS:
                found = self._search(inner, member, bits + item.bit_offset, depth + 1)
                if found is not None:
                    return found
        return None

    def _resolved(self, type_id: int) -> BtfType:
        """Return a type without typedefs and qualifiers."""
        type = self._btf.type(type_id)
        for _ in range(_MAX_DEPTH):
            if type.kind not in _ALIASES:
                return type
            type = self._btf.type(type.size_or_type)
        raise FormatError(self._btf.source, "BTF: a type that stands for itself")

    def _size(self, type_id: int, depth: int) -> int | None:
        type = self._resolved(type_id)
        if type.kind in _SIZED:
            return type.size_or_type
        if type.kind is BtfKind.PTR:
            return _POINTER
        if type.kind is BtfKind.ARRAY and depth < _MAX_DEPTH:
            element, length = self._btf.array(type)
            size = self._size(element, depth + 1)
            return None if size is None else size * length
        return None
