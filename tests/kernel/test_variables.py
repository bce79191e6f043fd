# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of variables, against the debug info of real kernels."""

from functools import partial

import pytest
from drgn import (
    Architecture,
    FaultError,
    Object,
    Platform,
    Program,
    Symbol,
    SymbolBinding,
    SymbolKind,
    TypeKind,
    TypeMember,
)

from kmemdump.kernel.attach import attach
from kmemdump.kernel.optional import optional
from kmemdump.kernel.variables import PER_CPU, VARIABLES, variable
from kmemdump.opening import open_target
from rigs.dead_machine import DeadMachine
from rigs.scenarios import each_series
from rigs.variable_drift import (
    compare_types,
    debug_info_object,
    find_drift,
    names_asked_for,
)


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


@pytest.mark.slow
def test_names_that_are_looked_up():
    """The list is made of the code: of drgn's helpers and commands, and of ours."""
    asked = names_asked_for()
    assert {"timekeeper_data", "userspace_init_fs", "PG_slab"} <= asked
    assert {"saved_command_line", "panic_cpu", "vmcoreinfo_data"} <= asked
    assert len(asked) > 150


def has(prog: Program, name: str) -> bool:
    return optional(partial(prog.variable, name)) is not None


@each_series
def test_types_are_those_of_the_debug_info(dead: DeadMachine) -> None:
    """And what drgn or we look up is found without it, if the kernel has it."""
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        prog = attach(target).prog
        assert find_drift(prog, attach(target, vmlinux=dead.vmlinux).prog) == []
        found = [name for name in VARIABLES if has(prog, name)]
        assert len(found) > 100
    finally:
        target.close()


@each_series
def test_per_cpu_variables_are_those_of_the_debug_info(dead: DeadMachine) -> None:
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        kernel = attach(target)
        debug_info = attach(target, vmlinux=dead.vmlinux).prog

        def expected(name: str) -> Object:
            found = debug_info_object(debug_info, name)
            assert found is not None
            return found

        assert kernel.own_debug_info.found is not None
        if dead.scenario.kernel != "5.10":  # pahole 1.17 wrote none.
            assert len(kernel.own_debug_info.found.per_cpu) > 150
        for name in ("runqueues", "timer_bases", "kstat", "__irq_regs"):
            compare_types(name, kernel.prog.variable(name), expected(name))
        # The table for kernels whose BTF has none.
        # Of the pointer, what it points to is not read. The count is a long in 7.3,
        # whose BTF says so.
        tried = PER_CPU.keys() - {"hardirq_stack_ptr", "__preempt_count"}
        there = [name for name in tried if has(debug_info, name)]
        assert {"runqueues", "kstat", "timer_bases"} <= {*there}
        for name in there:
            symbol = kernel.prog.symbol(name)
            found = variable(kernel.prog, name, symbol)
            assert found is not None
            compare_types(name, found, expected(name))
    finally:
        target.close()
