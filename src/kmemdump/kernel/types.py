# SPDX-License-Identifier: GPL-2.0-or-later
"""drgn types and constants, made from the BTF in the kernel's own memory."""

from __future__ import annotations

from collections.abc import Callable

from drgn import (
    Object,
    Program,
    Qualifiers,
    Type,
    TypeEnumerator,
    TypeKind,
    TypeKindSet,
    TypeMember,
    TypeParameter,
    sizeof,
)

from kmemdump.errors import FormatError
from kmemdump.formats.btf import Btf, BtfKind, BtfMember, BtfType

__all__ = ["BtfTypes"]

_KINDS = {
    TypeKind.INT: {BtfKind.INT},
    TypeKind.BOOL: {BtfKind.INT},
    TypeKind.FLOAT: {BtfKind.FLOAT},
    TypeKind.STRUCT: {BtfKind.STRUCT},
    TypeKind.UNION: {BtfKind.UNION},
    TypeKind.ENUM: {BtfKind.ENUM, BtfKind.ENUM64},
    TypeKind.TYPEDEF: {BtfKind.TYPEDEF},
}
_QUALIFIERS = {
    BtfKind.CONST: Qualifiers.CONST,
    BtfKind.VOLATILE: Qualifiers.VOLATILE,
    BtfKind.RESTRICT: Qualifiers.RESTRICT,
}
_INT_SIGNED, _INT_BOOL = 1, 4  # BTF_INT_*, in bits 24 to 27
_MAX_INTEGER = 16
_MAX_ARRAY = 64 << 20
"""Bytes of an array; the largest one of Debian's kernels has 4,194,304."""
_FLOATS = (2, 4, 8, 12, 16)  # Documentation/bpf/btf.rst
_MAX_DEPTH = 64
"""Limit on nested pointers, typedefs and arrays; corrupt BTF could nest forever."""


class BtfTypes:
    """
    A drgn type finder over BTF.

    drgn types belong to one program, so each program has a finder. They share an index.
    Members of structures are made when they are first used.
    """

    def __init__(self, prog: Program, btf: Btf) -> None:
        self._prog = prog
        self._btf = btf
        self._made: dict[int, Type] = {}
        self._found: dict[tuple[str, TypeKindSet], Type | None] = {}

    def find(
        self, prog: Program, kinds: TypeKindSet, name: str, filename: str | None
    ) -> Type | None:
        """Find a type by name: the callback of ``register_type_finder()``."""
        if filename is not None:
            return None
        if (name, kinds) not in self._found:
            self._found[name, kinds] = self._find(kinds, name)
        return self._found[name, kinds]

    def _find(self, kinds: TypeKindSet, name: str) -> Type | None:
        wanted: set[BtfKind] = set()
        for kind in kinds:
            wanted |= _KINDS.get(kind, set())
        type_id = self._btf.find(name, wanted)
        if type_id is None:
            return None
        found = self.make(type_id)
        return found if found.kind in kinds else None

    def constant(self, name: str) -> Object | None:
        """Return an enumerator as an object of its enumeration."""
        found = self._btf.find_enumerator(name)
        if found is None:
            return None
        type_id, index = found
        values = list(self._btf.enumerator_values(self._btf.type(type_id)))
        return Object(self._prog, self.make(type_id), values[index][1])

    def function(self, name: str) -> Type | None:
        """Return the type of a function."""
        type_id = self._btf.find(name, {BtfKind.FUNC})
        return self.make(self._btf.type(type_id).size_or_type) if type_id else None

    def make(self, type_id: int, depth: int = 0) -> Type:
        """
        Return the drgn type of a BTF type.

        :raises FormatError: If the BTF is corrupt.
        """
        made = self._made.get(type_id)
        if made is None:
            if depth > _MAX_DEPTH:
                raise FormatError(self._btf.source, f"BTF type {type_id} nests forever")
            try:
                made = self._make(self._btf.type(type_id), depth + 1)
            except (OverflowError, TypeError, ValueError) as error:  # drgn refuses it.
                raise FormatError(
                    self._btf.source, f"BTF type {type_id}: {error}"
                ) from error
            self._made[type_id] = made
        return made

    def _make(self, type: BtfType, depth: int) -> Type:
        prog, kind = self._prog, type.kind
        tag = type.name or None
        if kind == BtfKind.VOID:
            return prog.void_type()
        if kind == BtfKind.INT:
            return self._integer(type)
        if kind == BtfKind.PTR:
            return prog.pointer_type(self.make(type.size_or_type, depth))
        if kind == BtfKind.ARRAY:
            element, length = self._btf.array(type)
            made = self.make(element, depth)
            self._check_size(made, length)
            return prog.array_type(made, length)
        if kind in (BtfKind.STRUCT, BtfKind.UNION):
            factory = prog.struct_type if kind == BtfKind.STRUCT else prog.union_type
            members = list(self._btf.members(type))
            last = len(members) - 1
            return factory(
                tag,
                type.size_or_type,
                [self._member(member, i == last) for i, member in enumerate(members)],
            )
        if kind in (BtfKind.ENUM, BtfKind.ENUM64):
            return self._enumeration(type)
        if kind == BtfKind.FWD:
            return prog.union_type(tag) if type.flag else prog.struct_type(tag)
        if kind == BtfKind.TYPEDEF:
            return prog.typedef_type(type.name, self.make(type.size_or_type, depth))
        if kind in _QUALIFIERS:
            target = self.make(type.size_or_type, depth)
            return target.qualified(target.qualifiers | _QUALIFIERS[kind])
        if kind == BtfKind.FLOAT:
            return self._float(type)
        if kind == BtfKind.TYPE_TAG:  # __user, __percpu, __rcu
            return self.make(type.size_or_type, depth)
        if kind == BtfKind.FUNC_PROTO:
            return self._function(type, depth)
        raise FormatError(self._btf.source, f"a BTF {kind.name} is not a type")

    def _check_size(self, element: Type, length: int) -> None:
        # drgn takes that much memory before it reads anything.
        try:
            size = sizeof(element) * length
        except TypeError:  # Incomplete; it has no size.
            return
        if size > _MAX_ARRAY:
            raise FormatError(
                self._btf.source,
                f"an array of {size} bytes in BTF, expected at most {_MAX_ARRAY}",
            )

    def _integer(self, type: BtfType) -> Type:
        encoding = self._btf.int_encoding(type) >> 24 & 0xF
        size = type.size_or_type
        if not 0 < size <= _MAX_INTEGER:
            raise FormatError(self._btf.source, f"integer of {size} bytes in BTF")
        if encoding & _INT_BOOL:
            return self._prog.bool_type(type.name, size)
        return self._prog.int_type(type.name, size, bool(encoding & _INT_SIGNED))

    def _float(self, type: BtfType) -> Type:
        size = type.size_or_type
        if size not in _FLOATS:
            raise FormatError(self._btf.source, f"float of {size} bytes in BTF")
        return self._prog.float_type(type.name, size)

    def _enumeration(self, type: BtfType) -> Type:
        if not type.count:
            return self._prog.enum_type(type.name or None)
        values = [
            TypeEnumerator(name, value)
            for name, value in self._btf.enumerator_values(type)
        ]
        size = type.size_or_type
        names = {1: "char", 2: "short", 4: "int", 8: "long"}
        if size not in names:
            raise FormatError(self._btf.source, f"enumeration of {size} bytes in BTF")
        signed = type.flag
        compatible = self._prog.int_type(
            ("" if signed else "unsigned ") + names[size], size, signed
        )
        return self._prog.enum_type(type.name or None, compatible, values)

    def _function(self, type: BtfType, depth: int) -> Type:
        parameters = list(self._btf.parameters(type))
        variadic = bool(parameters) and parameters[-1] == ("", 0)
        if variadic:
            parameters.pop()
        return self._prog.function_type(
            self.make(type.size_or_type, depth),
            [
                TypeParameter(self._later(parameter), name or None)
                for name, parameter in parameters
            ],
            variadic,
        )

    def _later(self, type_id: int) -> Callable[[], Type]:
        return lambda: self.make(type_id)

    def _member(self, member: BtfMember, last: bool) -> TypeMember:
        return TypeMember(
            lambda: self._field(member, last), member.name or None, member.bit_offset
        )

    def _field(self, member: BtfMember, last: bool) -> Object:
        made, bits = self.make(member.type), member.bit_size or None
        if last and bits is None and made.kind == TypeKind.ARRAY and made.length == 0:
            # BTF has no incomplete arrays: as the last member, int[0] means int[].
            made = self._prog.array_type(made.type)
        try:
            return Object(self._prog, made, bit_field_size=bits)
        except (TypeError, ValueError) as error:
            raise FormatError(
                self._btf.source, f"BTF member {member.name}: {error}"
            ) from error
