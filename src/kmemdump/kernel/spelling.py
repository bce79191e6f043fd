# SPDX-License-Identifier: GPL-2.0-or-later
"""
Spellings: declarations of a variable, each of which holds for some kernels.

A spelling raises :exc:`LookupError` where it does not hold: the kernel lacks its type
or a member, or the variable has more or less room than it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from drgn import Program, Type, TypeMember, alignof, sizeof

from kmemdump.memory.ranges import round_up

__all__ = [
    "Spelling",
    "at_least",
    "at_most",
    "elements_of",
    "having",
    "make_struct",
    "make_type",
    "structure",
]

Maker = Callable[[Program, int], Type]
"""Makes a type, given the bytes up to the next symbol; 0 if they are unknown."""
Spelling = str | Maker
"""A C type, or what makes one."""

_MAX_ELEMENTS = 1 << 20


def make_type(prog: Program, spelling: Spelling, room: int) -> Type:
    """
    Make the type that a spelling says.

    :param room: Bytes up to the next symbol; 0 if they are unknown.
    :raises LookupError: If the spelling does not hold.
    """
    if not isinstance(spelling, str):
        made = spelling(prog, room)
    elif spelling.endswith("[]"):
        element = _element(prog, spelling)
        length = min(room // sizeof(element), _MAX_ELEMENTS)
        return prog.array_type(element, length)
    else:
        made = prog.type(spelling)
    needed = _size(made)
    if needed > room > 0:
        raise LookupError(f"{made.type_name()} needs {needed} bytes of {room}")
    return made


def having(struct: str, member: str, declared: str) -> Maker:
    """Return a spelling that holds where a structure has a member."""

    def make(prog: Program, room: int) -> Type:
        if not prog.type(struct).has_member(member):
            raise LookupError(f"{struct} has no member {member}")
        return make_type(prog, declared, room)

    return make


def at_least(length: int, declared: str) -> Maker:
    """Return the spelling of an array that holds from so many elements on."""

    def make(prog: Program, room: int) -> Type:
        made = make_type(prog, declared, room)
        if (made.length or 0) < length:
            raise LookupError(f"{room} bytes of {declared}, expected {length} elements")
        return made

    return make


def at_most(length: int, declared: str) -> Maker:
    """Return the spelling of an array of so many elements, or fewer if they fit."""

    def make(prog: Program, room: int) -> Type:
        element = _element(prog, declared)
        fitting = room // sizeof(element) if room else length
        return prog.array_type(element, min(fitting, length))

    return make


def elements_of(struct: str, member: str, length: int) -> Maker:
    """Return the spelling of an array whose elements have a member's type."""

    def make(prog: Program, room: int) -> Type:
        return prog.array_type(prog.type(struct).member(member).type, length)

    return make


def structure(*declared: tuple[str, str]) -> Maker:
    """Return the spelling of a structure without a name: its members, in order."""
    return lambda prog, room: make_struct(prog, None, declared)


def make_struct(
    prog: Program, tag: str | None, declared: Iterable[tuple[str, str]]
) -> Type:
    """
    Make the type of a structure whose members are aligned as C aligns them.

    :param declared: Names and types of its members, in order.
    :raises LookupError: If the kernel's types lack one of these.
    """
    members, end, widest = [], 0, 1
    for name, declaration in declared:
        type = prog.type(declaration)
        unit = alignof(type)
        end = round_up(end, unit)
        members.append(TypeMember(type, name, end * 8))
        end += sizeof(type)
        widest = max(widest, unit)
    return prog.struct_type(tag, round_up(end, widest), members)


def _element(prog: Program, declared: str) -> Type:
    return prog.type(declared.removesuffix("[]").rstrip())


def _size(type: Type) -> int:
    try:
        return int(sizeof(type))
    except TypeError:  # An incomplete type, or an array without a length.
        return 0
