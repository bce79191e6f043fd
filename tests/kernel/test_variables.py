# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of variables, against the debug info of real kernels."""

import pytest
from drgn import (
    Architecture,
    FaultError,
    Object,
    Platform,
    Program,
    Qualifiers,
    Symbol,
    SymbolBinding,
    SymbolKind,
    Type,
    TypeKind,
    TypeMember,
    sizeof,
)

from kmemdump.kernel.attach import attach
from kmemdump.kernel.variables import VARIABLES, variable
from kmemdump.opening import open_target
from rigs.dead_machine import DeadMachine
from rigs.scenarios import each_series

NAMES = tuple(VARIABLES)


def symbol(name: str, size: int) -> Symbol:
    kind = SymbolKind.OBJECT
    return Symbol(name, 0xFFFFFFFF82000000, size, SymbolBinding.GLOBAL, kind)


@pytest.fixture
def prog() -> Program:
    """A program that knows the basic types of C only."""
    return Program(Platform(Architecture.X86_64))


def test_a_variable(prog):
    found = variable(prog, "panic_timeout", symbol("panic_timeout", 4))
    assert found.address_ == 0xFFFFFFFF82000000
    assert found.type_.type_name() == "int"


def test_an_array_is_as_long_as_there_is_room(prog):
    assert VARIABLES["__per_cpu_offset"] == "unsigned long []"
    for size, length in ((64, 8), (71, 8), (0, 0)):
        found = variable(prog, "__per_cpu_offset", symbol("__per_cpu_offset", size))
        assert found.type_.length == length


def test_a_symbol_of_a_damaged_kernel_makes_no_endless_array(prog):
    found = variable(prog, "__per_cpu_offset", symbol("__per_cpu_offset", 1 << 62))
    assert found.type_.length <= 1 << 20


def test_a_variable_that_is_not_in_the_table(prog):
    assert variable(prog, "nothing", symbol("nothing", 8)) is None


def test_a_type_that_this_kernel_lacks(prog):
    with pytest.raises(LookupError):
        variable(prog, "init_task", symbol("init_task", 8))


def with_struct(prog: Program, tag: str, *members: str) -> None:
    """Let a program know a structure whose members are pointers."""

    def find(prog, kinds, name, _filename):
        if TypeKind.STRUCT not in kinds or name != tag:
            return None
        pointer = prog.pointer_type(prog.void_type())
        found = [TypeMember(pointer, it, 64 * i) for i, it in enumerate(members)]
        return prog.struct_type(tag, 8 * len(members), found)

    prog.register_type_finder(f"test {tag}", find, enable_index=-1)


def test_a_list_of_one_kind_or_another(prog):
    """What is there decides, not the kernel's version."""
    with_struct(prog, "hlist_head", "first")
    with_struct(prog, "file_system_type", "name", "next")
    found = variable(prog, "file_systems", symbol("file_systems", 8))
    assert found.type_.type_name() == "struct file_system_type *"


def test_a_list_of_another_kind(prog):
    with_struct(prog, "hlist_head", "first")
    with_struct(prog, "file_system_type", "name", "list")
    found = variable(prog, "file_systems", symbol("file_systems", 8))
    assert found.type_.type_name() == "struct hlist_head"


@pytest.mark.parametrize(
    ("room", "name"), [(8, "void **"), (64, "void **"), (65536, "void *[8192]")]
)
def test_an_array_or_a_pointer_to_one(prog, room, name):
    found = variable(prog, "stack_pools", symbol("stack_pools", room))
    assert found.type_.type_name() == name


def test_a_structure_that_has_a_name_or_none(prog):
    with_struct(prog, "tk_data", "seq", "timekeeper", "lock")
    found = variable(prog, "tk_core", symbol("tk_core", 512))
    assert found.type_.type_name() == "struct tk_data"


def test_a_variable_without_the_room_that_its_type_needs(prog):
    with_struct(prog, "list_head", "next", "prev")
    assert variable(prog, "modules", symbol("modules", 16)) is not None
    assert variable(prog, "modules", symbol("modules", 0)) is not None  # Unknown.
    with pytest.raises(LookupError, match="needs 16 bytes of 8"):
        variable(prog, "modules", symbol("modules", 8))


@pytest.mark.parametrize(
    ("architecture", "value", "believed"),
    [
        (Architecture.X86_64, 0, True),
        (Architecture.X86_64, 0xFFFF888000001000, True),
        (Architecture.X86_64, 0xFF11000000001000, True),  # 5 levels of page tables.
        (Architecture.X86_64, 0x00007FFFFFFFF000, False),
        (Architecture.X86_64, 0x1000, False),
        (Architecture.X86_64, 0x6F6C2F6E69622F00, False),
        (Architecture.AARCH64, 0xFFFF000000001000, True),
        (Architecture.AARCH64, 0xF5FFFF8000001000, True),  # With a tag.
        (Architecture.AARCH64, 0x0000FFFFFFFFF000, False),
    ],
)
def test_a_pointer_to_no_kernel_address_is_not_believed(architecture, value, believed):
    prog = Program(Platform(architecture))
    at = symbol("high_memory", 8)
    data = value.to_bytes(8, "little")
    prog.add_memory_segment(at.address, 8, lambda *_: data)
    if believed:
        assert variable(prog, "high_memory", at).value_() == value
    else:
        with pytest.raises(LookupError, match="no kernel address"):
            variable(prog, "high_memory", at)


def test_a_pointer_that_cannot_be_read_is_found(prog):
    found = variable(prog, "high_memory", symbol("high_memory", 8))
    with pytest.raises(FaultError):
        found.value_()


def test_an_offset_into_per_cpu_memory_is_no_address(prog):
    at = symbol("crash_notes", 8)
    prog.add_memory_segment(
        at.address, 8, lambda *_: bytes((0, 0x10, 0, 0, 0, 0, 0, 0))
    )
    with_struct(prog, "note_buf", "word")

    def find(prog, kinds, name, _filename):
        return prog.typedef_type(name, prog.int_type("int", 4, True))

    prog.register_type_finder("typedefs", find, enable_index=-1)
    assert variable(prog, "crash_notes", at).value_() == 0x1000


def bare(type_: Type) -> str:
    """Return the name of a type without qualifiers, typedefs and array lengths."""
    if type_.kind == TypeKind.ARRAY:
        return f"{bare(type_.type)}[]"
    if type_.kind == TypeKind.POINTER:
        return f"{bare(type_.type)} *"
    if type_.kind == TypeKind.TYPEDEF:
        return bare(type_.type)
    if type_.kind in (TypeKind.STRUCT, TypeKind.UNION) and type_.tag is None:
        members = (f"{member.name} {bare(member.type)}" for member in type_.members)
        return f"{{{', '.join(members)}}}"
    return type_.qualified(Qualifiers.NONE).type_name()


def compare(name: str, found: Object, expected: Object) -> None:
    """Compare a variable of the table with that of the debug info."""
    assert found.address_ == expected.address_
    ours, theirs = found.type_, expected.type_
    assert bare(ours) == bare(theirs)
    if theirs.kind != TypeKind.ARRAY:
        assert sizeof(ours) == sizeof(theirs)
    elif theirs.length is not None:
        # What is between this symbol and the next may be padding. The banner's length
        # is not to be known: it has the most that one can have.
        padding = 512 if name == "linux_banner" else 64
        assert 0 <= sizeof(ours) - sizeof(theirs) < padding
        assert sizeof(ours.type) == sizeof(theirs.type)


@each_series
def test_types_are_those_of_the_debug_info(dead: DeadMachine) -> None:
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        prog = attach(target).prog
        debug_info = attach(target, vmlinux=dead.vmlinux).prog
        compared = []
        for name in NAMES:
            try:
                found = prog.variable(name)
            except LookupError:
                continue  # Of another kernel.
            compare(name, found, debug_info.variable(name))
            compared.append(name)
        assert len(compared) > 120
        missing = [name for name in NAMES if name not in compared]
        for name in missing:  # It is not for want of its type.
            with pytest.raises(LookupError):
                prog.symbol(name)
    finally:
        target.close()


@each_series
def test_per_cpu_variables_are_those_of_the_debug_info(dead: DeadMachine) -> None:
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        kernel = attach(target)
        debug_info = attach(target, vmlinux=dead.vmlinux).prog
        assert kernel.own_debug_info.found is not None
        assert len(kernel.own_debug_info.found.per_cpu) > 200
        for name in ("runqueues", "timer_bases", "kstat", "__irq_regs"):
            compare(name, kernel.prog.variable(name), debug_info.variable(name))
    finally:
        target.close()
