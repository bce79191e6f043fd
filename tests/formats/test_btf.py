# SPDX-License-Identifier: GPL-2.0-or-later
"""BTF: what is written is found, and any bytes are BTF or refused."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError
from kmemdump.formats.btf import Btf, BtfKind, BtfMember, parse_btf
from rigs.btf_writer import BtfWriter


def parse(writer: BtfWriter, base: Btf | None = None) -> Btf:
    return parse_btf(writer.bytes(), "test", base)


def every_kind() -> BtfWriter:
    """One type of each kind, with ids from 1 in the order of ``BTF_KIND_*``."""
    w = BtfWriter()
    integer = w.integer("int", 4, signed=True)
    w.pointer(integer)
    w.array(integer, 7)
    w.struct("list_head", 16, [("next", 2, 0), ("prev", 2, 64)])
    w.struct("either", 8, [("i", integer, 0), ("p", 2, 0)], kind=5)
    w.enum("pid_type", {"PIDTYPE_PID": 0, "PIDTYPE_MAX": 4})
    w.forward("bpf_map")
    w.typedef("pid_t", integer)
    w.volatile(integer)
    w.const(integer)
    w.restrict(2)
    w.function("schedule", 13)
    w.prototype(0, [("when", integer), ("", 0)])
    w.variable("runqueues", 4)
    w.section(".data..percpu", [(14, 0x1C0, 16)])
    w.float("double", 8)
    w.declaration_tag("tag", 4)
    w.type_tag("rcu", integer)
    w.enum64("big", {"BIG": 1 << 40})
    return w


def test_every_kind_is_found_by_id():
    btf = parse(every_kind())
    assert [btf.type(i).kind for i in range(20)] == list(BtfKind)
    assert btf.type(0).name == "void"
    assert (btf.type(8).name, btf.type(8).size_or_type) == ("pid_t", 1)


def test_every_kind_is_found_by_name():
    btf = parse(every_kind())
    assert btf.find("list_head", {BtfKind.STRUCT}) == 4
    assert btf.find("list_head", {BtfKind.UNION}) is None
    assert btf.find("either", {BtfKind.STRUCT, BtfKind.UNION}) == 5
    assert btf.find("schedule", {BtfKind.FUNC}) == 12
    assert btf.find("sched", {BtfKind.FUNC}) is None  # Part of a name is no name.
    assert btf.find("", set(BtfKind)) is None


def test_what_is_in_a_type():
    btf = parse(every_kind())
    assert list(btf.members(btf.type(4))) == [
        BtfMember("next", 2, 0, 0),
        BtfMember("prev", 2, 64, 0),
    ]
    assert btf.array(btf.type(3)) == (1, 7)
    assert list(btf.parameters(btf.type(13))) == [("when", 1), ("", 0)]
    assert list(btf.section_variables(btf.type(15))) == [(14, 0x1C0)]
    assert btf.listed[BtfKind.DATASEC] == [15]
    assert btf.int_encoding(btf.type(1)) == 1 << 24 | 32


def test_bit_fields():
    w = BtfWriter()
    u32 = w.integer("unsigned int", 4)
    w.struct("flags", 8, [("a", u32, 0, 3), ("b", u32, 3, 1), ("whole", u32, 32, 0)])
    btf = parse(w)
    assert [(m.bit_offset, m.bit_size) for m in btf.members(btf.type(2))] == [
        (0, 3),
        (3, 1),
        (32, 0),
    ]


def test_offset_beyond_24_bits_where_there_are_no_bit_fields():
    w = BtfWriter()
    u32 = w.integer("unsigned int", 4)
    w.struct("huge", 1 << 25, [("last", u32, 8 * 0x1FFFFFC)])
    assert next(parse(w).members(parse(w).type(2))).bit_offset == 8 * 0x1FFFFFC


@pytest.mark.parametrize("signed", [False, True])
def test_enumerators(signed):
    w = BtfWriter()
    low = -1 if signed else 0xFFFFFFFF
    w.enum("e", {"LOW": low, "HIGH": 0x7FFFFFFF}, signed=signed)
    w.enum64("f", {"FAR": -2 if signed else 1 << 63}, signed=signed)
    btf = parse(w)
    assert list(btf.enumerator_values(btf.type(1))) == [
        ("LOW", low),
        ("HIGH", 0x7FFFFFFF),
    ]
    far = list(btf.enumerator_values(btf.type(2)))
    assert far == [("FAR", -2 if signed else 1 << 63)]
    assert btf.find_enumerator("HIGH") == (1, 1)
    assert btf.find_enumerator("FAR") == (2, 0)
    assert btf.find_enumerator("e") is None


def test_the_first_of_several_types_with_one_name():
    w = BtfWriter()
    first = w.struct("ring", 8, [])
    w.typedef("ring", first)
    w.struct("ring", 16, [])
    btf = parse(w)
    assert btf.find("ring", {BtfKind.STRUCT}) == first
    assert btf.find("ring", {BtfKind.TYPEDEF}) == 2


def test_a_modules_btf_goes_on_from_the_kernels():
    kernel = BtfWriter()
    integer = kernel.integer("int", 4, signed=True)
    kernel.struct("list_head", 16, [])
    kernel.enum("kernels", {"KERNEL": 7})
    module = BtfWriter(kernel)
    new = module.struct("lab", 4, [("int", integer, 0)])  # A name of the kernel's.
    shadow = module.typedef("list_head", integer)
    module.enum("modules", {"MODULE": 9})
    base = parse(kernel)
    split = parse(module, base)
    assert (new, shadow) == (4, 5)
    assert split.find("lab", {BtfKind.STRUCT}) == new
    assert split.find("list_head", {BtfKind.STRUCT}) == 2
    assert split.find("list_head", {BtfKind.TYPEDEF}) == shadow
    assert split.type(integer).name == "int"
    assert next(split.members(split.type(new))) == BtfMember("int", integer, 0, 0)
    assert split.find_enumerator("KERNEL") == (3, 0)
    assert split.find_enumerator("MODULE") == (6, 0)
    assert split.find("nothing", set(BtfKind)) is None
    assert base.find("lab", {BtfKind.STRUCT}) is None


def test_a_modules_btf_without_a_name_of_its_own():
    kernel = every_kind()
    module = BtfWriter(kernel)
    module.enum("pid_type", {"PIDTYPE_MAX": 5})
    split = parse(module, parse(kernel))
    assert split.strings == b""
    assert split.find("pid_type", {BtfKind.ENUM}) == 20
    assert split.find_enumerator("PIDTYPE_MAX") == (20, 0)
    assert split.find_enumerator("PIDTYPE_PID") == (6, 0)


def test_sections_may_lie_apart():
    w = every_kind()
    gap = b"?" * 32
    head = struct.pack(
        "<HBBIIIII", 0xEB9F, 1, 0, 32, 32 + len(w.strings), len(w.types), 0,
        len(w.strings),
    )  # fmt: skip
    data = head + bytes(8) + w.strings + gap + w.types
    assert parse_btf(data, "test").find("list_head", {BtfKind.STRUCT}) == 4


GOOD = every_kind().bytes()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "0 bytes are no BTF"),
        (GOOD[:23], "23 bytes are no BTF"),
        (b"\x9f\xea" + GOOD[2:], "magic 0xea9f and version 1, expected BTF 0xeb9f"),
        (GOOD[:2] + b"\2" + GOOD[3:], "version 2"),
        (GOOD[:-1], "sections end after"),
        (GOOD[:-1] + b"x", "lack a terminating NUL"),
        (BtfWriter(every_kind()).bytes(), "lack a terminating NUL"),
        (GOOD.replace(b"\0int\0", b"xint\0"), "do not begin with an empty one"),
        (GOOD[:28] + struct.pack("<I", 31 << 24) + GOOD[32:], "unknown BTF kind 31"),
        (GOOD[:28] + struct.pack("<I", 0) + GOOD[32:], "unknown BTF kind 0"),
        (GOOD[:12] + struct.pack("<I", 30) + GOOD[16:], "cut short"),
    ],
)
def test_refused(data, problem):
    with pytest.raises(FormatError, match=f"^test: .*{problem}"):
        parse_btf(data, "test")


def test_ids_and_strings_that_are_not_there():
    btf = parse(every_kind())
    for type_id in (20, 1 << 31, -1):
        with pytest.raises(FormatError, match="no type"):
            btf.type(type_id)
    with pytest.raises(FormatError, match="no string at offset"):
        btf.string(1 << 31)


def look_at_everything(btf: Btf) -> None:
    for type_id in range(1, len(btf.places) + 1):
        with contextlib.suppress(FormatError):
            found = btf.type(type_id)
            btf.find(found.name, {found.kind})
            if found.kind in (BtfKind.STRUCT, BtfKind.UNION):
                list(btf.members(found))
            elif found.kind in (BtfKind.ENUM, BtfKind.ENUM64):
                list(btf.enumerator_values(found))
            elif found.kind == BtfKind.FUNC_PROTO:
                list(btf.parameters(found))
            elif found.kind == BtfKind.DATASEC:
                list(btf.section_variables(found))
            elif found.kind == BtfKind.ARRAY:
                btf.array(found)
            elif found.kind == BtfKind.INT:
                btf.int_encoding(found)
    btf.find_enumerator("PIDTYPE_PID")


@given(st.binary(max_size=300))
def test_any_bytes(data):
    for start in (b"", GOOD[:24]):
        with contextlib.suppress(FormatError):
            look_at_everything(parse_btf(start + data, "test"))


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255))))
def test_any_damage(changes):
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    with contextlib.suppress(FormatError):
        look_at_everything(parse_btf(bytes(data), "test"))


# Structures that no compiler makes


def chain(levels: int, width: int, through: str = "") -> BtfWriter:
    """Structures, each with the next one *width* times in it, without a name."""
    w = BtfWriter()
    inner = w.struct("s0", 8, [("end", w.integer("int", 4), 0)])
    for level in range(1, levels + 1):
        if through == "const":
            inner = w.const(inner)
        elif through == "typedef":
            inner = w.typedef(f"t{level}", inner)
        inner = w.struct(f"s{level}", 8, [("", inner, 0)] * width)
    return w


def refused(btf: Btf) -> list[int]:
    """Return the types that are refused."""
    found = []
    for type_id in range(btf.first_id, btf.first_id + len(btf.places)):
        try:
            btf.type(type_id)
        except FormatError:
            found.append(type_id)
    return found


@pytest.mark.parametrize("through", ["", "const", "typedef"])
def test_more_members_than_any_machine_lists(through):
    btf = parse(chain(17, 40, through))
    for level, good in ((0, True), (2, True), (3, False), (17, False)):
        # Names are found by their types.
        if good:
            assert btf.find(f"s{level}", {BtfKind.STRUCT})
        else:
            with pytest.raises(FormatError, match="a structure whose anonymous"):
                btf.find(f"s{level}", {BtfKind.STRUCT})


@pytest.mark.slow
def test_depth_of_anonymous_structures():
    btf = parse(chain(100, 1))
    assert btf.find("s60", {BtfKind.STRUCT})
    with pytest.raises(FormatError, match="64 levels"):
        btf.find("s70", {BtfKind.STRUCT})
    with pytest.raises(FormatError, match="64 levels"):  # No recursion of ours.
        parse(chain(50_000, 1)).find("s50000", {BtfKind.STRUCT})


def test_structures_in_themselves():
    w = BtfWriter()
    w.struct("itself", 8, [("", 1, 0)])
    w.struct("one", 8, [("", 3, 0)])
    w.struct("other", 8, [("", 2, 0), ("n", 2, 0)])
    w.struct("by_name", 8, [("n", 4, 0)])  # Costs nothing until it is asked for.
    assert refused(parse(w)) == [1, 2, 3]


def test_structures_larger_than_any():
    w = BtfWriter()
    w.struct("large", 64 << 20, [])
    w.struct("larger", (64 << 20) + 1, [])
    w.struct("largest", 0xFFFFFFF0, [], kind=5)
    btf = parse(w)
    assert btf.type(1).size_or_type == 64 << 20
    for type_id in (2, 3):
        with pytest.raises(FormatError, match="bytes, expected at most 67108864"):
            btf.type(type_id)


def test_a_module_goes_on_where_the_kernel_ends():
    """What the kernel has and what a module adds count together."""
    kernel = chain(2, 40)
    module = BtfWriter(kernel)
    inner = module.struct("m", 8, [("", kernel.next_id - 1, 0)] * 40)
    btf = parse(module, parse(kernel))
    assert not refused(btf.base)
    assert refused(btf) == [inner]


def test_a_name_is_no_longer_than_the_kernels_are():
    """One string can be the name of each of 65,535 members."""
    writer = BtfWriter()
    writer.integer("a" * 511, 4)
    writer.integer("b" * 512, 4)
    btf = parse_btf(writer.bytes(), "x")
    assert btf.type(1).name == "a" * 511
    with pytest.raises(FormatError, match="no string"):
        btf.type(2)
