# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of variables, against the debug info of real kernels."""

import pytest
from drgn import (
    Architecture,
    Object,
    Platform,
    Program,
    Qualifiers,
    Symbol,
    SymbolBinding,
    SymbolKind,
    Type,
    TypeKind,
    sizeof,
)

from kmemdump.kernel.attach import attach
from kmemdump.kernel.variables import VARIABLES, variable
from kmemdump.opening import open_target
from rigs.dead_machine import DeadMachine
from rigs.scenarios import each_series

NAMES = (*VARIABLES, "tk_core", "cpu_bit_bitmap")


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
