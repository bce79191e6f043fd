# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes and offsets of the kernel's structures, out of its BTF."""

from __future__ import annotations

from typing import NamedTuple

from kmemdump.errors import FormatError
from kmemdump.formats.btf import Btf, BtfKind, BtfMember, BtfType
from kmemdump.memory.ranges import round_up

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
_SCALARS = {BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64, BtfKind.FLOAT}
_MAX_SEARCHED = 10_000
"""Structures that are searched for a member; a kernel's lines take hundreds."""
_WORD = 8
_ALIGNMENTS = (16, 32, 64, 128, 256)
"""Larger units that the source may align to: two words, lines of caches."""
_MAX_DEPTH = 32
"""Types within types; damaged BTF has circles."""


class _Measure(NamedTuple):
    size: int
    alignment: int


class BtfLayout:
    """
    Answers for the macros ``SIZE``, ``OFFSET`` and ``LENGTH`` of VMCOREINFO.

    Each method returns ``None`` if the kernel has no such type, member or constant, or
    if what BTF says of it contradicts itself: members overlap, or leave a gap that no
    compiler leaves. BTF has no checksum.
    """

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._searched = 0
        self._measured: dict[int, _Measure | None] = {}

    def size(self, name: str) -> int | None:
        """Return the size in bytes of a structure, a union or a typedef."""
        found = self._btf.find(name, _NAMED)
        if found is None:
            return None
        type = self._resolved(found)
        if type.kind is BtfKind.STRUCT and not self._is_sound(type):
            return None
        measure = self._measure(found)
        return None if measure is None else measure.size

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
        """Return the value of an enumerator that is next to one of its neighbours."""
        found = self._btf.find_enumerator(name)
        if found is None:
            return None
        type_id, index = found
        each = self._btf.enumerator_values(self._btf.type(type_id))
        values = [value for _, value in each]
        if index >= len(values):
            return None
        value = values[index]
        near = [it + 1 for it in values[max(index - 1, 0) : index]]
        near += [it - 1 for it in values[index + 1 : index + 2]]
        return value if value in near or not near else None

    def _member(self, name: str, member: str) -> tuple[int, int] | None:
        """Return the offset of a member in bits, and its type."""
        found = self._btf.find(name, _STRUCTS)
        if found is None:
            return None
        return self._search(self._btf.type(found), member, 0, 0)

    def _search(
        self, type: BtfType, member: str, bits: int, depth: int
    ) -> tuple[int, int] | None:
        self._searched += 1
        if depth > _MAX_DEPTH or self._searched > _MAX_SEARCHED:
            raise FormatError(self._btf.source, "BTF: a structure that contains itself")
        if type.kind is BtfKind.STRUCT and not self._is_sound(type):
            return None
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

    def _is_sound(self, type: BtfType) -> bool:
        """Return whether the members of a structure are as a compiler lays them out."""
        end, alignment = 0, 1
        for item in self._btf.members(type):
            measure = self._measure(item.type)
            if item.bit_size or measure is None:
                end = max(end, -(-(item.bit_offset + item.bit_size) // 8))
                continue
            start = item.bit_offset // 8
            starts = {round_up(end, it) for it in (measure.alignment, *_ALIGNMENTS)}
            if item.bit_offset % 8 or start not in starts or start % measure.alignment:
                return False
            end, alignment = start + measure.size, max(alignment, measure.alignment)
        # None that matters here is aligned to more than it has.
        larger = (it for it in _ALIGNMENTS if it <= end)
        return type.size_or_type in {round_up(end, it) for it in (alignment, *larger)}

    def _resolved(self, type_id: int) -> BtfType:
        """Return a type without typedefs and qualifiers."""
        type = self._btf.type(type_id)
        for _ in range(_MAX_DEPTH):
            if type.kind not in _ALIASES:
                return type
            type = self._btf.type(type.size_or_type)
        raise FormatError(self._btf.source, "BTF: a type that stands for itself")

    def _measure(self, type_id: int, depth: int = 0) -> _Measure | None:
        """Return size and natural alignment of a type, if it has them."""
        if type_id not in self._measured:
            self._measured[type_id] = self._computed(type_id, depth)
        return self._measured[type_id]

    def _computed(self, type_id: int, depth: int) -> _Measure | None:
        type = self._resolved(type_id)
        size = type.size_or_type
        if type.kind is BtfKind.PTR:
            return _Measure(_WORD, _WORD)
        if type.kind in _SCALARS:
            return _Measure(size, max(min(size, 2 * _WORD), 1))
        if depth > _MAX_DEPTH:
            raise FormatError(self._btf.source, "BTF: a type that contains itself")
        if type.kind is BtfKind.ARRAY:
            element, length = self._btf.array(type)
            one = self._measure(element, depth + 1)
            return None if one is None else _Measure(one.size * length, one.alignment)
        if type.kind in _STRUCTS:
            # A packed one shows itself by its size.
            parts = (
                self._measure(it.type, depth + 1) for it in self._btf.members(type)
            )
            alignment = max((it.alignment for it in parts if it), default=1)
            while size % alignment:
                alignment //= 2
            return _Measure(size, alignment)
        return None
