# SPDX-License-Identifier: GPL-2.0-or-later
"""
Tables of regions that the kernel itself registered.

Four kinds of table are known: that of our module (``kmod/table.h``), those of the
kernel series kmemdump RFC v1 and RFC v2 and v3, and that of meminspect. Ours has a
fixed layout. The others are read with the types of BTF or DWARF, or else with the
layout of the patches.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from drgn import FaultError, Object, Program, Type, cast, sizeof
from drgn.helpers.linux.idr import idr_for_each
from drgn.helpers.linux.mm import follow_phys

from kmemdump.arch.architecture import arch_from_program
from kmemdump.kernel.loaded_modules import loaded_modules
from kmemdump.kernel.spelling import make_struct
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import ADDRESS_SPACE, Range
from kmemdump.text import c_string, printable

__all__ = ["KernelRegion", "find_kernel_regions", "physical_ranges"]

_MAX_REGIONS = 4096
_MAX_SIZE = 1 << 28
"""Most bytes of one region; a larger size is taken to be damaged."""
_MAX_EXPORTS = 1 << 14

# struct kmemdump_table and kmemdump_entry, kmod/table.h.
_TABLE = struct.Struct("<8s4I40x")
_ENTRY = struct.Struct("<2I2Q24s2Q")
_MAGIC, _VERSION = b"KMEMDUMP", 1
_FNV_OFFSET, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3

_ZONE_V1 = [
    ("id", "int"),
    ("zone", "void *"),
    ("size", "size_t"),
    ("registered", "_Bool"),
    ("handle", "char [8]"),
]
_ZONE = [("id", "unsigned int"), ("zone", "void *"), ("size", "size_t")]
_INSPECT = [
    ("id", "unsigned int"),
    ("va", "void *"),
    ("pa", "u64"),
    ("size", "size_t"),
    ("type", "unsigned int"),
]
_SLOTS = 201
"""Rows in the tables of RFC v2 and v3, and of meminspect."""


@dataclass(frozen=True, slots=True)
class KernelRegion:
    """A region that the kernel itself registered."""

    table: str
    """Name of the table's symbol."""
    id: int
    name: str
    address: int
    """Kernel virtual address."""
    size: int
    """Size in bytes."""


def find_kernel_regions(prog: Program) -> list[KernelRegion]:
    """
    Return the regions in all tables that the kernel has.

    A row that is changing, or makes no sense, is left out. A region that is in several
    tables is returned once.
    """
    found: dict[tuple[int, int], KernelRegion] = {}
    untagged = arch_from_program(prog).untagged
    for find in _TABLES:
        for region in find(prog):
            if len(found) >= _MAX_REGIONS:
                break
            address, size = untagged(region.address), region.size
            if 0 < size <= _MAX_SIZE and address + size <= ADDRESS_SPACE:
                region = replace(region, address=address)
                found.setdefault((address, size), region)
    return list(found.values())


def physical_ranges(prog: Program, address: int, size: int) -> list[tuple[int, Range]]:
    """
    Return the physical memory behind kernel virtual memory.

    :return: Virtual addresses and the ranges mapped there, in order.
    :raises FaultError: If the virtual memory is not mapped.
    """
    found: list[tuple[int, Range]] = []
    mm = prog["init_mm"].address_of_()
    end = address + size
    while address < end:
        count = min(PAGE_SIZE - address % PAGE_SIZE, end - address)
        physical = follow_phys(mm, address).value_()
        if found and found[-1][1].end == physical:
            start, before = found[-1]
            found[-1] = start, Range(before.start, before.size + count)
        else:
            found.append((address, Range(physical, count)))
        address += count
    return found


def _own_table(prog: Program) -> Iterator[KernelRegion]:
    """Yield the regions that are registered with our module."""
    start = _exported(prog, "kmemdump_table")
    if start is None:
        return
    try:
        header = _TABLE.unpack(prog.read(start, _TABLE.size))
    except FaultError:
        return
    magic, version, entry_size, capacity, used = header
    if (magic, version, entry_size) != (_MAGIC, _VERSION, _ENTRY.size):
        return
    for i in range(min(used, capacity, _MAX_REGIONS)):
        try:
            row = prog.read(start + _TABLE.size + i * _ENTRY.size, _ENTRY.size)
        except FaultError:
            return
        id, _, address, size, name, _, check = _ENTRY.unpack(row)
        if id and check == _check(row[:-8]):
            yield KernelRegion("kmemdump_table", id, _text(name), address, size)


def _check(data: bytes) -> int:
    value = _FNV_OFFSET
    for (word,) in struct.iter_unpack("<Q", data):
        value = (value ^ word) * _FNV_PRIME % ADDRESS_SPACE
    return value


def _series_v1(prog: Program) -> Iterator[KernelRegion]:
    """Yield the zones of RFC v1, which an IDR holds."""
    address = _symbol(prog, "kmemdump_idr")
    if address is None:
        return
    zone_type = _struct(prog, "struct kmemdump_zone", _ZONE_V1)
    if not zone_type.has_member("handle"):
        return
    idr = Object(prog, "struct idr", address=address)
    try:
        for count, (_, pointer) in enumerate(idr_for_each(idr.address_of_())):
            if count >= _MAX_REGIONS:
                return
            zone = cast(prog.pointer_type(zone_type), pointer)
            yield _mark("kmemdump_idr", zone, "zone", _text(zone.handle.to_bytes_()))
    except FaultError:
        return


def _series_v2(prog: Program) -> Iterator[KernelRegion]:
    """Yield the zones of RFC v2 and v3."""
    address = _symbol(prog, "kmemdump_zones")
    if address is not None:
        type = _struct(prog, "struct kmemdump_zone", _ZONE)
        names = _names(prog, "enum kmemdump_uid", "KMEMDUMP_ID_", "COREIMAGE_")
        yield from _slots(prog, "kmemdump_zones", address, type, "zone", names)


def _meminspect(prog: Program) -> Iterator[KernelRegion]:
    """Yield the entries of meminspect: those in the table, then in the section."""
    names = _names(prog, "enum meminspect_uid", "MEMINSPECT_ID_")
    address = _symbol(prog, "inspect_entries")
    if address is not None:
        type = _struct(prog, "struct inspect_entry", _INSPECT)
        yield from _slots(prog, "inspect_entries", address, type, "va", names)
    start, end = (_symbol(prog, f"__inspect_table{it}") for it in ("", "_end"))
    if start is not None and end is not None:
        type = _struct(prog, "struct inspect_entry", _INSPECT)
        count = max(end - start, 0) // sizeof(type)
        yield from _slots(prog, ".inspect_table", start, type, "va", names, count)


_TABLES: tuple[Callable[[Program], Iterator[KernelRegion]], ...] = (
    _own_table,
    _meminspect,
    _series_v2,
    _series_v1,
)


def _slots(
    prog: Program,
    table: str,
    address: int,
    type: Type,
    member: str,
    names: dict[int, str],
    count: int = _SLOTS,
) -> Iterator[KernelRegion]:
    for i in range(min(count, _MAX_REGIONS)):
        entry = Object(prog, type, address=address + i * sizeof(type))
        try:
            id = entry.id.value_()
            if id:  # 0 is an empty slot.
                name = names.get(id) or f"id{id}"
                yield _mark(table, entry, member, name)
        except FaultError:
            return


def _mark(table: str, entry: Object, member: str, name: str) -> KernelRegion:
    address = entry.member_(member).value_()
    return KernelRegion(table, entry.id.value_(), name, address, entry.size.value_())


def _symbol(prog: Program, name: str) -> int | None:
    try:
        address: int = prog.symbol(name).address
    except LookupError:
        return _exported(prog, name)
    return address


def _exported(prog: Program, name: str) -> int | None:
    """
    Find the address of a symbol that a module exports.

    kallsyms has a module's variables only with CONFIG_KALLSYMS_ALL.
    """
    wanted = name.encode() + b"\0"
    try:
        for module in loaded_modules(prog):
            for symbols, number in _export_tables(module):
                for i in range(min(number, _MAX_EXPORTS)):
                    symbol = symbols[i]
                    found = _relative_address(symbol.name_offset)
                    if prog.read(found, len(wanted)) == wanted:
                        return _relative_address(symbol.value_offset)
    except (FaultError, LookupError, AttributeError):
        return None  # No modules, or a damaged list of them.
    return None


def _export_tables(module: Object) -> Iterator[tuple[Object, int]]:
    for name in ("syms", "gpl_syms"):
        try:
            yield module.member_(name), module.member_(f"num_{name}").value_()
        except LookupError:
            return


def _relative_address(offset: Object) -> int:
    # CONFIG_HAVE_ARCH_PREL32_RELOCATIONS, which x86_64 and aarch64 have: addresses are
    # relative to the address of the offset itself.
    address, distance = offset.address_, offset.value_()
    assert isinstance(address, int)
    assert isinstance(distance, int)
    return (address + distance) % ADDRESS_SPACE


def _struct(prog: Program, name: str, members: list[tuple[str, str]]) -> Type:
    try:
        return prog.type(name)
    except LookupError:
        return make_struct(prog, name.removeprefix("struct "), members)


def _names(prog: Program, type: str, *prefixes: str) -> dict[int, str]:
    """Return the names of ids from the kernel's enumeration."""
    try:
        enumerators = prog.type(type).enumerators or ()
    except LookupError:
        return {}
    names: dict[int, str] = {}
    for name, value in enumerators:
        for prefix in prefixes:
            name = name.removeprefix(prefix)
        names.setdefault(value, name)
    return names


def _text(name: bytes) -> str:
    return printable(c_string(name)) or "unnamed"
