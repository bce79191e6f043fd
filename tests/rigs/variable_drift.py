# SPDX-License-Identifier: GPL-2.0-or-later
"""
How far our types of a kernel's variables are from those of its debug info.

A kernel's release may change the type of a variable, or add one that drgn's helpers ask
for first. Neither raises an error. This finds both, for any kernel of which there is
memory and a vmlinux.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import drgn
from drgn import Object, Program, Qualifiers, Type, TypeKind, sizeof

import kmemdump
from kmemdump.kernel.variables import PER_CPU, VARIABLES

__all__ = ["compare_types", "debug_info_object", "find_drift", "names_asked_for"]

_PROGRAMS = ("prog", "program", "prog_", "_prog")
_LOOKUPS = ("variable", "object", "constant")
_IN_C = (
    # libdrgn/linux_kernel.c, linux_kernel_helpers.c and arch_aarch64.c of drgn 0.3.
    "__irq_regs",
    "__per_cpu_offset",
    "init_mm",
    "init_pid_ns",
    "mem_section",
    "modules",
    "runqueues",
)
_PADDING = 64
"""What is between a variable and the next symbol may be padding."""


@cache
def names_asked_for() -> frozenset[str]:
    """Return the names that drgn's Python code and ours look up in a program."""
    names = set(_IN_C)
    for package in (drgn, kmemdump):
        assert package.__file__ is not None
        for path in Path(package.__file__).parent.rglob("*.py"):
            names.update(_names(ast.parse(path.read_text())))
    return frozenset(names)


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and _last(node.value) in _PROGRAMS:
            asked: ast.expr | None = node.slice
        elif isinstance(node, ast.Call) and node.args and _last(node.func) in _LOOKUPS:
            asked = node.args[0]
        else:
            continue
        if isinstance(asked, ast.Constant) and isinstance(asked.value, str):
            yield asked.value


def _last(node: ast.expr) -> str | None:
    """Return the last name of ``a.b.name``."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def find_drift(own: Program, debug_info: Program) -> list[str]:
    """
    Return what is wrong with our types of a kernel's variables, one line each.

    :param own: The kernel, attached without debug info.
    :param debug_info: The same kernel with its vmlinux.
    """
    problems = []
    asked = names_asked_for()
    ours = VARIABLES.keys() | PER_CPU.keys()
    for name in sorted(asked | ours):
        expected, found = debug_info_object(debug_info, name), _object(own, name)
        if expected is None:
            continue
        if expected.type_.kind == TypeKind.ARRAY and expected.type_.length == 0:
            # An array without elements (vm_numa_event without CONFIG_NUMA): its symbol
            # has the address of the next one, and nobody reads any of it.
            continue
        if found is not None and name in ours:
            try:
                compare_types(name, found, expected)
            except AssertionError as error:
                problems.append(f"{name}: {error}")
        elif found is None and name in asked:
            kind = expected.type_.type_name()
            problems.append(f"{name} is {kind}, and is not found without debug info")
    return problems


def _object(prog: Program, name: str) -> Object | None:
    try:
        found = prog[name]
    except KeyError:
        return None
    return None if found.absent_ else found  # A function that is always inlined.


def debug_info_object(prog: Program, name: str) -> Object | None:
    """
    Return the variable of which the kernel's symbol table has the name.

    The debug info may have several: KVM's hypervisor on aarch64 has an overflow_stack
    of its own, whose symbol is __kvm_nvhe_overflow_stack. drgn finds one by chance.

    :param prog: The kernel with its vmlinux.
    """
    found = _object(prog, name)
    if found is None or found.address_ is None:
        return found
    try:
        return Object(prog, found.type_, address=prog.symbol(name).address)
    except LookupError:
        return found


def compare_types(name: str, found: Object, expected: Object) -> None:
    """
    Compare a variable of ours with that of the debug info.

    :raises AssertionError: If they differ.
    """
    ours, theirs = found.type_, expected.type_
    if expected.address_ not in (found.address_, None):  # None: it never changes.
        raise AssertionError(f"at {found.address_}, expected {expected.address_}")
    if _bare(ours) != _bare(theirs):
        raise AssertionError(f"is {_bare(ours)}, expected {_bare(theirs)}")
    if theirs.kind != TypeKind.ARRAY:
        if not (_size(ours) is None or _size(ours) == _size(theirs)):
            raise AssertionError(f"{_size(ours)} bytes, expected {_size(theirs)}")
    elif theirs.length is not None:
        # The banner's length is not to be known: it has the most that one can have.
        padding = 512 if name == "linux_banner" else _PADDING
        more = sizeof(ours) - sizeof(theirs)
        if not (sizeof(ours.type) == sizeof(theirs.type) and 0 <= more <= padding):
            raise AssertionError(f"{sizeof(ours)} bytes, expected {sizeof(theirs)}")


def _size(type_: Type) -> int | None:
    try:
        return int(sizeof(type_))
    except TypeError:  # An incomplete type.
        return None


def _bare(type_: Type) -> str:
    """Return the name of a type without qualifiers, typedefs and array lengths."""
    if type_.kind == TypeKind.ARRAY:
        return f"{_bare(type_.type)}[]"
    if type_.kind == TypeKind.POINTER:
        return f"{_bare(type_.type)} *"
    if type_.kind == TypeKind.TYPEDEF:
        return _bare(type_.type)
    if type_.kind in (TypeKind.STRUCT, TypeKind.UNION) and type_.tag is None:
        members = (f"{member.name} {_bare(member.type)}" for member in type_.members)
        return f"{{{', '.join(members)}}}"
    return str(type_.qualified(Qualifiers.NONE).type_name())
