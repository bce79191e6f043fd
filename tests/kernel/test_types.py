# SPDX-License-Identifier: GPL-2.0-or-later
"""drgn types of BTF: of BTF made by hand, and of real kernels against their DWARF."""

import contextlib
import re
import struct

import pytest
from drgn import (
    Architecture,
    Platform,
    Program,
    Qualifiers,
    Type,
    TypeKind,
    offsetof,
    sizeof,
)
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats.btf import parse_btf
from kmemdump.kernel.attach import attach
from kmemdump.kernel.types import BtfTypes
from kmemdump.opening import open_target
from rigs.btf_writer import BtfWriter
from rigs.dead_machine import DeadMachine
from rigs.scenarios import each_series


def program(data: bytes) -> Program:
    prog = Program(Platform(Architecture.X86_64))
    types = BtfTypes(prog, parse_btf(data, "test"))
    prog.register_type_finder("btf", types.find, enable_index=0)
    prog.register_object_finder(
        "btf", lambda _prog, name, _flags, _file: types.constant(name), enable_index=0
    )
    return prog


def test_a_list():
    w = BtfWriter()
    w.struct("list_head", 16, [("next", 2, 0), ("prev", 2, 64)])
    w.pointer(1)
    type_ = program(w.bytes()).type("struct list_head")
    assert str(type_) == (
        "struct list_head {\n\tstruct list_head *next;\n\tstruct list_head *prev;\n}"
    )
    assert (sizeof(type_), offsetof(type_, "prev")) == (16, 8)


def test_integers():
    w = BtfWriter()
    w.integer("long int", 8, signed=True)
    w.integer("unsigned char", 1)
    w.integer("_Bool", 1, bool_=True)
    w.float("double", 8)
    w.typedef("pid_t", 1)
    prog = program(w.bytes())
    assert prog.type("long").is_signed
    assert prog.type("long").size == 8
    assert not prog.type("unsigned char").is_signed
    assert prog.type("_Bool").kind == TypeKind.BOOL
    assert prog.type("double").kind == TypeKind.FLOAT
    assert prog.type("pid_t").type.name == "long"
    with pytest.raises(LookupError):
        prog.type("struct pid_t")


@pytest.mark.parametrize("size", [0, 3, 17, 1 << 31])
def test_a_float_of_a_strange_size_is_refused(size):
    w = BtfWriter()
    w.typedef("real", w.float("strange", size))
    prog = program(w.bytes())
    with pytest.raises(FormatError, match=f"float of {size} bytes"):
        prog.type("real")


def test_a_struct_of_everything():
    w = BtfWriter()
    u32 = w.integer("unsigned int", 4)
    char = w.integer("char", 1, signed=True)
    name = w.array(char, 16)
    constant = w.const(char)
    text = w.pointer(constant)
    nothing = w.array(char, 0)
    inner = w.struct("", 4, [("a", u32, 0, 3), ("b", u32, 3, 29)], kind=5)
    unknown = w.forward("unknown")
    other = w.pointer(unknown)
    callback = w.prototype(u32, [("cpu", u32), ("", 0)])
    function = w.pointer(callback)
    tagged = w.pointer(w.type_tag("rcu", char))
    volatile = w.volatile(u32)
    w.struct(
        "every",
        64,
        [
            ("comm", name, 0),
            ("text", text, 128),
            ("", inner, 192),
            ("state", volatile, 224),
            ("other", other, 256),
            ("function", function, 320),
            ("tagged", tagged, 384),
            ("zero", nothing, 448),
            ("tail", nothing, 512),
        ],
    )
    prog = program(w.bytes())
    every = prog.type("struct every")
    types = {member.name: member.type for member in every.members}
    assert types["comm"].length == 16
    assert types["text"].type.qualifiers == Qualifiers.CONST
    assert types["state"].qualifiers == Qualifiers.VOLATILE
    assert not types["other"].type.is_complete()
    assert types["function"].type.is_variadic
    assert [p.name for p in types["function"].type.parameters] == ["cpu"]
    assert types["tagged"].type.name == "char"
    assert types["zero"].length == 0
    assert types["tail"].length is None  # C's "char tail[]", which BTF has not.
    fields = {member.name: member for member in types[None].members}
    assert (fields["b"].bit_offset, fields["b"].bit_field_size) == (3, 29)


def test_enumerations():
    w = BtfWriter()
    w.enum("pid_type", {"PIDTYPE_PID": 0, "PIDTYPE_MAX": 4})
    w.enum("", {"NOTHING": -1, "SOMETHING": 1}, signed=True)
    w.enum64("wide", {"FAR": 1 << 40})
    w.enum("tiny", {"SMALL": 255}, size=1)
    w.add(6, "later", 4)
    prog = program(w.bytes())
    assert prog["PIDTYPE_MAX"].value_() == 4
    assert prog["PIDTYPE_MAX"].type_.tag == "pid_type"
    assert prog["NOTHING"].value_() == -1
    assert prog["FAR"].value_() == 1 << 40
    assert prog["SMALL"].type_.type.size == 1
    assert not prog.type("enum later").is_complete()
    with pytest.raises(KeyError):
        prog["pid_type"]


def corrupt(**change: int) -> Program:
    """A program with struct broken { chain *c; ... } that goes on for ever."""
    w = BtfWriter()
    first = w.next_id
    w.pointer(change.get("target", first))
    w.typedef("endless", first + 2)
    w.const(first + 1)
    w.struct("broken", 8, [("gone", 4711, 0), ("endless", first + 1, 0)])
    w.function("odd", first)
    w.struct("holds_a_function", 8, [("f", first + 4, 0), ("g", first, 0)])
    w.struct("itself", 8, [("inner", first + 6, 0)])
    w.enum("strange", {"STRANGE": 1}, size=3)
    w.array(first + 8, 5)
    w.struct("nested", 8, [("a", first + 8, 0)])
    return program(w.bytes())


def test_a_type_that_is_not_there():
    with pytest.raises(FormatError, match="no type 4711"):
        str(corrupt().type("struct broken"))


def test_a_typedef_of_itself():
    with pytest.raises(FormatError, match="nests forever"):
        corrupt().type("endless")


def test_an_array_of_itself():
    with pytest.raises(FormatError, match="nests forever"):
        str(corrupt().type("struct nested"))


def test_a_pointer_to_itself():
    w = BtfWriter()
    w.pointer(1)
    w.typedef("loop", 1)
    with pytest.raises(FormatError, match="nests forever"):
        program(w.bytes()).type("loop")


def test_a_member_that_is_no_type():
    with pytest.raises(FormatError, match="FUNC is not a type"):
        str(corrupt().type("struct holds_a_function"))


def test_an_enumeration_of_3_bytes():
    with pytest.raises(FormatError, match="3 bytes"):
        corrupt()["STRANGE"]


@pytest.mark.parametrize("member", ["larger", "not_an_integer"])
def test_bit_fields_that_drgn_refuses(member):
    w = BtfWriter()
    u32 = w.integer("unsigned int", 4)
    w.struct("flags", 4, [("larger", u32, 0, 77), ("not_an_integer", 2, 0, 5)])
    flags = program(w.bytes()).type("struct flags")
    with pytest.raises(FormatError, match="bit field"):
        _ = flags.member(member).type


def test_a_qualifier_twice():
    w = BtfWriter()
    u32 = w.integer("unsigned int", 4)
    once = w.const(u32)
    w.typedef("fixed", w.const(once))
    assert program(w.bytes()).type("fixed").type.qualifiers == Qualifiers.CONST


@pytest.mark.parametrize("size", [0, 17, 1 << 28])
def test_integers_of_a_strange_size(size):
    w = BtfWriter()
    integer = w.integer("unsigned int", size)
    w.struct("strange", 8, [("integer", integer, 0), ("more", integer, 0)])
    strange = program(w.bytes()).type("struct strange")
    with pytest.raises(FormatError, match=f"integer of {size} bytes"):
        _ = strange.member("integer").type


def walk(type_: Type, depth: int = 4) -> None:
    """Look at a type as drgn's printer does, a few levels deep."""
    if depth == 0:
        return
    if type_.kind in (TypeKind.STRUCT, TypeKind.UNION) and type_.is_complete():
        for member in type_.members:
            walk(member.type, depth - 1)
    elif type_.kind in (TypeKind.POINTER, TypeKind.ARRAY, TypeKind.TYPEDEF):
        walk(type_.type, depth - 1)
    elif type_.kind == TypeKind.FUNCTION:
        for parameter in type_.parameters:
            walk(parameter.type, depth - 1)


_KINDS = st.integers(1, 19)
_IDS = st.one_of(st.integers(0, 12), st.integers(0, (1 << 32) - 1))


@st.composite
def any_types(draw) -> bytes:
    """BTF whose layout is right and whose contents are anything."""
    w = BtfWriter()
    for number in range(draw(st.integers(1, 10))):
        kind = draw(_KINDS)
        count = draw(st.integers(0, 3))
        each = {4: 3, 5: 3, 6: 2, 13: 2, 15: 3, 19: 3}.get(kind, 0)
        fixed = {1: 1, 3: 3, 14: 1, 17: 1}.get(kind, 0)
        words = [draw(_IDS) for _ in range(fixed + each * count)]
        if each:
            names = [w.name(f"m{number}{i}") for i in range(count)]
            words[::each] = names
        body = b"".join(word.to_bytes(4, "little") for word in words)
        w.add(kind, f"t{number}", draw(_IDS), body, count, draw(st.booleans()))
    return w.bytes()


def test_a_member_without_a_size():
    w = BtfWriter()
    w.add(3, "", 0, struct.pack("<III", 0, 0, 2), 0, False)  # void[2]
    w.add(4, "t", 4, struct.pack("<III", w.name("m"), 1, 0), 1, False)
    [member] = program(w.bytes()).type("struct t").members
    with pytest.raises(FormatError, match="BTF member m: cannot get size of void"):
        member.type  # noqa: B018


@given(any_types())
def test_any_types_are_types_or_refused(data):
    prog = program(data)
    for number in range(10):
        for prefix in ("", "struct ", "union ", "enum "):
            with contextlib.suppress(FormatError, LookupError):
                walk(prog.type(f"{prefix}t{number}"))
        with contextlib.suppress(FormatError, LookupError):
            prog[f"m{number}0"].value_()


STRUCTURES = re.findall(
    r"\w+",
    """
    address_space cpumask cred dentry device file files_struct fs_struct hrtimer inode
    irq_desc irq_data irqaction kernfs_node kobject kset list_head mm_struct module
    mount net net_device nsproxy page pci_dev percpu_counter pglist_data pid
    pid_namespace printk_info printk_ringbuffer prb_desc pt_regs rq sched_entity
    signal_struct super_block swap_info_struct task_struct thread_info timekeeper
    timer_base timer_list uts_namespace vfsmount vm_area_struct vm_struct zone
    """,
)


def shape(type_: Type, prefix: str = "", base: int = 0) -> dict[str, tuple[int, ...]]:
    """Offset in bits, size in bytes and bit field size of all named members."""
    found: dict[str, tuple[int, ...]] = {}
    for member in type_.members:
        offset = base + member.bit_offset
        inner = member.type
        if member.name is None:  # An anonymous struct or union.
            found.update(shape(inner, prefix, offset))
            continue
        complete = inner.kind != TypeKind.ARRAY or bool(inner.length)
        size = sizeof(inner) if complete else 0
        name = prefix + member.name
        found[name] = (offset, size, member.bit_field_size or 0)
        if inner.kind in (TypeKind.STRUCT, TypeKind.UNION) and inner.tag is None:
            found.update(shape(inner, f"{name}.", offset))
    return found


@each_series
def test_structures_are_those_of_the_debug_info(dead: DeadMachine) -> None:
    target = open_target(f"qmp:{dead.machine.qmp}")
    try:
        prog = attach(target).prog
        debug_info = attach(target, vmlinux=dead.vmlinux).prog
        for name in STRUCTURES:
            found, expected = (p.type(f"struct {name}") for p in (prog, debug_info))
            assert sizeof(found) == sizeof(expected), name
            assert shape(found) == shape(expected), name
    finally:
        target.close()


def test_arrays_larger_than_any():
    """drgn would take the memory before it reads the first byte."""
    w = BtfWriter()
    w.struct("page", 16 << 20, [])
    w.array(1, 5)
    w.struct("holder", 8, [("pages", 2, 0)])
    holder = program(w.bytes()).type("struct holder")
    with pytest.raises(FormatError, match="an array of 83886080 bytes"):
        str(holder.members[0].type)
