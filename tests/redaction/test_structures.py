# SPDX-License-Identifier: GPL-2.0-or-later
"""What each byte of a structure is, is said by its type."""

import pytest
from drgn import Architecture, Platform, PlatformFlags, Program, TypeMember

from kmemdump.redaction.codes import DATA, KEEP
from kmemdump.redaction.structures import Part, Structures


@pytest.fixture
def prog() -> Program:
    flags = PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN
    return Program(Platform(Architecture.X86_64, flags))


def hot(prog, name, kind="union"):
    """Return a type like pcpu_hot's: what it has, and an array that gives its size."""
    byte = prog.int_type("unsigned char", 1, False)
    number = prog.int_type("int", 4, True)
    own = prog.struct_type(
        None,
        12,
        (
            TypeMember(prog.pointer_type(number), "current_task"),
            TypeMember(number, "cpu_number", 64),
        ),
    )
    members = (TypeMember(own), TypeMember(prog.array_type(byte, 16), name))
    make = prog.union_type if kind == "union" else prog.struct_type
    return make("hot", 16, members)


@pytest.mark.parametrize("name", ["pad", "__pad", "padding", "_pad1"])
def test_padding_of_a_union_is_what_the_other_members_are(prog, name):
    parts = Structures().parts(hot(prog, name))
    assert parts[0] == Part(0, 12, KEEP)
    assert all(it.code != KEEP for it in parts[1:])


@pytest.mark.parametrize("name", ["comm", "data", "keypad", "padlock"])
def test_other_bytes_in_a_union_are_data(prog, name):
    assert Structures().parts(hot(prog, name)) == [Part(0, 16, DATA)]


def test_a_union_that_is_all_padding_is_data(prog):
    byte = prog.int_type("unsigned char", 1, False)
    whole = TypeMember(prog.array_type(byte, 16), "pad")
    assert Structures().parts(prog.union_type("all", 16, (whole,))) == [
        Part(0, 16, DATA)
    ]


def test_bytes_of_padding_in_a_structure_are_data(prog):
    """They may be what was there before."""
    byte = prog.int_type("unsigned char", 1, False)
    number = prog.int_type("int", 4, True)
    members = (
        TypeMember(number, "here"),
        TypeMember(prog.array_type(byte, 12), "pad", 32),
    )
    assert Structures().parts(prog.struct_type("padded", 16, members)) == [
        Part(0, 4, KEEP),
        Part(4, 12, DATA),
    ]
