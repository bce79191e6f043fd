# SPDX-License-Identifier: GPL-2.0-or-later
"""Types as drgn has them, encoded as BTF and made again."""

from __future__ import annotations

import pytest
from drgn import (
    Architecture,
    Object,
    Platform,
    Program,
    Qualifiers,
    Type,
    TypeEnumerator,
    TypeKind,
    TypeMember,
    TypeParameter,
    sizeof,
)

from kmemdump.formats.btf import Btf, BtfKind, parse_btf
from kmemdump.kernel.type_encoder import TypeEncoder
from kmemdump.kernel.types import BtfTypes
from rigs.btf_writer import BtfWriter


@pytest.fixture
def prog() -> Program:
    return Program(Platform(Architecture.X86_64))


def again(prog: Program, type: Type, base: Btf | None = None) -> Type:
    """Encode a type, and make it of what was written."""
    encoder = TypeEncoder(base)
    type_id = encoder.encode(type)
    return BtfTypes(prog, parse_btf(encoder.data(), "new", base)).make(type_id)


def basic(prog: Program) -> dict[str, Type]:
    integer = prog.int_type("int", 4, True)
    char = prog.int_type("char", 1, True)
    bits = prog.int_type("unsigned int", 4, False)
    point = prog.struct_type(
        "point", 8, [TypeMember(integer, "x"), TypeMember(integer, "y", 32)]
    )
    inner = prog.union_type(None, 4, [TypeMember(integer, "a"), TypeMember(bits, "b")])
    small = TypeEnumerator("SMALL", -1), TypeEnumerator("ONE", 1)
    large = (TypeEnumerator("LARGE", 1 << 40),)
    unsigned_long = prog.int_type("unsigned long", 8, False)
    return {
        "void": prog.void_type(),
        "int": integer,
        "bool": prog.bool_type("_Bool", 1),
        "double": prog.float_type("double", 8),
        "pointer": prog.pointer_type(prog.void_type(qualifiers=Qualifiers.CONST)),
        "qualified": prog.pointer_type(
            integer.qualified(Qualifiers.CONST | Qualifiers.VOLATILE)
        ),
        "array": prog.array_type(prog.array_type(char, 3), 5),
        "typedef": prog.typedef_type("points", prog.array_type(point, 2)),
        "struct": point,
        "union": inner,
        "incomplete": prog.pointer_type(prog.struct_type("hidden")),
        "incomplete union": prog.pointer_type(prog.union_type("hidden")),
        "bit fields": prog.struct_type(
            "flags",
            8,
            [
                TypeMember(Object(prog, bits, bit_field_size=3), "low"),
                TypeMember(Object(prog, bits, bit_field_size=5), "high", 3),
                TypeMember(inner, None, 32),
            ],
        ),
        "flexible": prog.struct_type(
            "tail",
            4,
            [TypeMember(integer, "n"), TypeMember(prog.array_type(char), "d", 32)],
        ),
        "enum": prog.enum_type("small", integer, small),
        "wide enum": prog.enum_type("large", unsigned_long, large),
        "function": prog.function_type(
            integer, [TypeParameter(prog.pointer_type(char), "format")], True
        ),
        "procedure": prog.pointer_type(prog.function_type(prog.void_type(), [])),
    }


def plain(type: Type, depth: int = 8) -> object:
    """Return what matters of a type, to compare it."""
    kind, more = type.kind, depth - 1
    head = (kind, type.qualifiers)
    if depth == 0 or kind == TypeKind.VOID:
        return head
    if kind in (TypeKind.POINTER, TypeKind.ARRAY, TypeKind.TYPEDEF):
        length = type.length if kind == TypeKind.ARRAY else None
        name = type.name if kind == TypeKind.TYPEDEF else ""
        return (*head, name, length, plain(type.type, more))
    if kind in (TypeKind.STRUCT, TypeKind.UNION):
        if not type.is_complete():
            return (*head, type.tag)
        members = [
            (it.name, it.bit_offset, it.bit_field_size, plain(it.type, more))
            for it in type.members
        ]
        return (*head, type.tag, type.size, members)
    if kind == TypeKind.ENUM:
        values = [(it.name, it.value) for it in type.enumerators]
        return (*head, type.tag, sizeof(type), values)
    if kind == TypeKind.FUNCTION:
        parameters = [(it.name, plain(it.type, more)) for it in type.parameters]
        return (*head, plain(type.type, more), parameters, type.is_variadic)
    return (*head, type.name, type.size)


@pytest.mark.parametrize("name", list(basic(Program(Platform(Architecture.X86_64)))))
def test_a_type_stays_the_same(prog: Program, name: str) -> None:
    type = basic(prog)[name]
    assert plain(again(prog, type)) == plain(type)


def test_types_that_refer_to_themselves(prog: Program) -> None:
    node = prog.struct_type(
        "node", 16, [TypeMember(lambda: prog.pointer_type(node), "next"),
                     TypeMember(lambda: prog.pointer_type(tree), "tree", 64)]
    )  # fmt: skip
    tree = prog.struct_type("tree", 8, [TypeMember(prog.pointer_type(node), "first")])
    made = again(prog, node)
    assert plain(made, 6) == plain(node, 6)
    assert made.member("tree").type.type.member("first").type.type.tag == "node"


def test_a_base_stands_for_its_own_types(prog: Program) -> None:
    writer = BtfWriter()
    number = writer.integer("int", 4, signed=True)
    writer.struct("point", 8, [("x", number, 0), ("y", number, 32)])
    writer.struct("other", 4, [("z", number, 0)])
    base = parse_btf(writer.bytes(), "base")
    integer = prog.int_type("int", 4, True)
    point = prog.struct_type("point", 8, [TypeMember(integer, "q")])
    other = prog.struct_type("other", 64, [TypeMember(integer, "y")])
    outer = prog.struct_type(
        "outer", 72, [TypeMember(point, "point"), TypeMember(other, "other", 64)]
    )
    encoder = TypeEncoder(base)
    type_id = encoder.encode(outer)
    btf = parse_btf(encoder.data(), "new", base)
    made = BtfTypes(prog, btf).make(type_id)
    # Of the same name and size: the base's. Of another size: not.
    assert [it.name for it in made.member("point").type.members] == ["x", "y"]
    assert made.member("other").type.size == 64
    # By name, too: a name of the base is not written again.
    assert btf.find("outer", {BtfKind.STRUCT}) == type_id
    assert btf.find("other", {BtfKind.STRUCT}) != base.find("other", {BtfKind.STRUCT})
    assert b"\0y\0" not in b"\0" + btf.strings


def test_enumerators_and_functions_are_found(prog: Program) -> None:
    types = basic(prog)
    encoder = TypeEncoder()
    for name in ("enum", "wide enum"):
        encoder.encode(types[name])
    encoder.function("do_it", types["function"])
    found = BtfTypes(prog, parse_btf(encoder.data(), "new"))
    assert found.constant("SMALL").value_() == -1
    assert found.constant("LARGE").value_() == 1 << 40
    function = found.function("do_it")
    assert function is not None
    assert plain(function) == plain(types["function"])


def test_too_many_types_end(prog: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmemdump.kernel.type_encoder._MAX_TYPES", 3)
    types = [
        prog.struct_type(f"s{i}", 8, [TypeMember(lambda i=i: chain(i + 1), "next")])
        for i in range(50)
    ]

    def chain(number: int) -> Type:
        return prog.pointer_type(types[min(number, 49)])

    made = again(prog, types[0])
    assert made.member("next").type.type.tag == "s1"
