# SPDX-License-Identifier: GPL-2.0-or-later
"""Encode types that drgn knows, and all that they refer to, as BTF."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import ClassVar

from drgn import Qualifiers, Type, TypeKind

from kmemdump.formats.btf import Btf, BtfKind
from kmemdump.formats.btf_writer import BtfWriter

__all__ = ["TypeEncoder"]

_MAX_TYPES = 1 << 18
"""Most types to encode; a kernel has 100,000."""


class TypeEncoder:
    """
    Encodes types, each once.

    :param base: BTF in which a structure, union or enumeration of the same name and
        size stands for one that is encoded.
    """

    _STRUCTS: ClassVar = {
        TypeKind.STRUCT: BtfKind.STRUCT,
        TypeKind.CLASS: BtfKind.STRUCT,
        TypeKind.UNION: BtfKind.UNION,
    }
    _QUALIFIERS = (
        (Qualifiers.CONST, BtfKind.CONST),
        (Qualifiers.VOLATILE, BtfKind.VOLATILE),
        (Qualifiers.RESTRICT, BtfKind.RESTRICT),
    )

    def __init__(self, base: Btf | None = None) -> None:
        self._base = base
        self._writer = BtfWriter(base)
        self._known: dict[Hashable, int] = {}
        self._later: deque[tuple[int, Type]] = deque()

    def encode(self, type: Type) -> int:
        """Return the id of a type, encoded with all that it refers to."""
        type_id = self._encode(type)
        while self._later and len(self._writer) < _MAX_TYPES:
            self._write_members(*self._later.popleft())
        while self._later:  # Too many: they stay empty.
            later, structure = self._later.popleft()
            kind, size = self._STRUCTS[structure.kind], structure.size or 0
            self._writer.structure(later, kind, structure.tag or "", size, ())
        return type_id

    def function(self, name: str, type: Type) -> None:
        """Encode a function with its name."""
        self._writer.add(BtfKind.FUNC, name, self.encode(type), count=1)

    def data(self) -> bytes:
        """Return the BTF, which continues the base."""
        return self._writer.data()

    def _encode(self, type: Type) -> int:
        plain = type.unqualified()
        type_id = self._encode_plain(plain)
        for qualifier, kind in self._QUALIFIERS:
            if type.qualifiers & qualifier:
                type_id = self._refer(kind, type_id)
        return type_id

    def _encode_plain(self, type: Type) -> int:
        kind = type.kind
        if kind == TypeKind.VOID:
            return 0
        if kind == TypeKind.POINTER:
            return self._refer(BtfKind.PTR, self._encode(type.type))
        if kind == TypeKind.TYPEDEF:
            return self._refer(BtfKind.TYPEDEF, self._encode(type.type), type.name)
        if kind in self._STRUCTS:
            return self._structure(type)
        if kind == TypeKind.ARRAY:
            return self._array(type)
        if kind == TypeKind.ENUM:
            return self._enumeration(type)
        if kind == TypeKind.FUNCTION:
            return self._function(type)
        return self._number(type)

    def _refer(self, kind: BtfKind, target: int, name: str = "") -> int:
        key = kind, target, name
        if key not in self._known:
            self._known[key] = self._writer.add(kind, name, target)
        return self._known[key]

    def _number(self, type: Type) -> int:
        key = type.kind, type.name, type.size
        if key not in self._known:
            if type.kind == TypeKind.FLOAT:
                made = self._writer.add(BtfKind.FLOAT, type.name, type.size)
            else:
                boolean = type.kind == TypeKind.BOOL
                signed = not boolean and type.is_signed
                made = self._writer.integer(
                    type.name, type.size, signed=signed, boolean=boolean
                )
            self._known[key] = made
        return self._known[key]

    def _array(self, type: Type) -> int:
        element = self._encode(type.type)
        key = BtfKind.ARRAY, element, type.length or 0
        if key not in self._known:
            index = self._known.get("index")
            if index is None:
                index = self._known["index"] = self._writer.integer(
                    "__ARRAY_SIZE_TYPE__", 4, signed=False, boolean=False
                )
            self._known[key] = self._writer.array(element, index, type.length or 0)
        return self._known[key]

    def _structure(self, type: Type) -> int:
        kind, tag = self._STRUCTS[type.kind], type.tag or ""
        if not type.is_complete():
            found = self._in_base(tag, kind, None)
            return found or self._forward(kind, tag)
        if not tag:  # Nobody else refers to it.
            made = self._writer.reserve()
            self._later.append((made, type))
            return made
        # Different files may have different structures of one name.
        key = kind, tag, type.size, tuple(member.name for member in type.members)
        if key not in self._known:
            found = self._in_base(tag, kind, type.size)
            if found is None:
                found = self._writer.reserve()
                self._later.append((found, type))
            self._known[key] = found
        return self._known[key]

    def _forward(self, kind: BtfKind, tag: str) -> int:
        key = BtfKind.FWD, kind, tag
        if key not in self._known:
            union = kind == BtfKind.UNION
            self._known[key] = self._writer.add(BtfKind.FWD, tag, flag=union)
        return self._known[key]

    def _in_base(self, name: str, kind: BtfKind, size: int | None) -> int | None:
        """Return the id of a type of the base; any size will do if it is ``None``."""
        if self._base is None or not name:
            return None
        type_id = self._base.find(name, {kind})
        if type_id is None:
            return None
        return (
            type_id if size in (None, self._base.type(type_id).size_or_type) else None
        )

    def _write_members(self, type_id: int, type: Type) -> None:
        members = [
            (
                member.name or "",
                self._encode(member.type),
                member.bit_offset,
                member.bit_field_size or 0,
            )
            for member in type.members
        ]
        kind = self._STRUCTS[type.kind]
        self._writer.structure(type_id, kind, type.tag or "", type.size, members)

    def _enumeration(self, type: Type) -> int:
        tag = type.tag or ""
        if not type.is_complete():
            values: list[tuple[str, int]] = []
            size, signed = 4, False
        else:
            values = [(it.name, it.value) for it in type.enumerators]
            size, signed = type.type.size, type.type.is_signed
        key = BtfKind.ENUM, tag, size, tuple(values)
        if key not in self._known:
            kind = BtfKind.ENUM if size <= 4 else BtfKind.ENUM64
            found = self._in_base(tag, kind, size)
            if found is None:
                found = self._writer.enumeration(tag, size, values, signed=signed)
            self._known[key] = found
        return self._known[key]

    def _function(self, type: Type) -> int:
        parameters = [
            (item.name or "", self._encode(item.type)) for item in type.parameters
        ]
        if type.is_variadic:
            parameters.append(("", 0))
        returns = self._encode(type.type)
        key = BtfKind.FUNC_PROTO, returns, tuple(parameters)
        if key not in self._known:
            self._known[key] = self._writer.prototype(returns, parameters)
        return self._known[key]
