# SPDX-License-Identifier: GPL-2.0-or-later
"""
Variables and types of a kernel whose kallsyms have functions only.

Without CONFIG_KALLSYMS_ALL, VMCOREINFO names a dozen variables, and the table of what
the kernel exports to modules some hundred more. BTF is there, but not the symbols of
its bounds; it says where per-CPU variables are, seen from each other.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from drgn import FaultError, Object, Program
from drgn.helpers.linux.list import list_for_each_entry

from kmemdump.arch.architecture import arch_from_info
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.formats.btf import Btf, BtfKind, find_btf, parse_btf
from kmemdump.formats.ksymtab import find_exports
from kmemdump.formats.orc import find_orc
from kmemdump.formats.symbols import SymbolRow, SymbolTable, make_symbols
from kmemdump.kernel.module_list import find_module_list
from kmemdump.memory.physical import PAGE_SIZE, Memory
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = [
    "add_per_cpu_variables",
    "find_thread_size",
    "find_variables",
    "lacks_unwind_tables",
]

_MAX_IMAGE = 64 << 20
"""Most bytes of the image that are searched."""
_CHUNK = 1 << 20
_MAX_STACK = 1 << 20
_VARIABLE = 0x11
"""``st_info`` of a global variable."""


def find_variables(
    prog: Program, info: VmcoreInfo, memory: Memory, functions: SymbolTable
) -> SymbolTable:
    """
    Return *functions* with the variables that can be found, and the bounds of BTF.

    :param prog: Reads again what was found, so that it is recorded.
    :param memory: The kernel's physical memory, which is searched.
    :param functions: The symbols of a kernel without CONFIG_KALLSYMS_ALL.
    """
    known: dict[str, list[int]] = {}
    for row in functions:
        known.setdefault(row.name, []).append(row.address)
    start, image = _read_image(info, memory)
    found = dict(_named(info, range(start, start + len(image))))
    proof = known | {name: [address] for name, address in found.items()}
    exports = find_exports(image, start, proof)
    if exports is not None:
        found |= exports[0]
        with contextlib.suppress(FaultError):
            prog.read(start + exports[1].start, exports[1].size)
    states = _find_strings(image, start, (b"R (running)", b"S (sleeping)"))
    if states is not None:
        found["task_state_array"] = states
    btf = find_btf(image, f"{info.source}: BTF")
    if btf is not None:
        found["__start_BTF"] = start + btf[0]
        found["__stop_BTF"] = start + btf[1]
        types = parse_btf(image[slice(*btf)], f"{info.source}: BTF")
        if near := found.get("init_uts_ns"):
            head = find_module_list(info, memory, start, image, near, types)
            if head is not None:
                found["modules"] = head
    found |= _unwind_tables(info, image, start, known)
    variables = [
        SymbolRow(address, name, _VARIABLE)
        for name, address in found.items()
        if name not in known
    ]
    return make_symbols([*functions, *variables])


def _unwind_tables(
    info: VmcoreInfo, image: bytes, start: int, known: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    """Return the bounds of the unwind tables, without which stacks are guessed."""
    if not arch_from_info(info).unwind_tables or not {"_stext", "_etext"} <= {*known}:
        return {}
    text = range(known["_stext"][0] - start, known["_etext"][0] - start)
    tables = find_orc(image, text)
    if tables is None:
        return {}
    header = {}
    if tables.header is not None:
        header["__start_orc_header"] = start + tables.header
        header["__stop_orc_header"] = start + tables.places
    return header | {
        "__start_orc_unwind_ip": start + tables.places,
        "__stop_orc_unwind_ip": start + tables.entries,
        "__start_orc_unwind": start + tables.entries,
        "__stop_orc_unwind": start + tables.end,
    }


def _find_strings(image: bytes, start: int, strings: tuple[bytes, ...]) -> int | None:
    """Return the address of the array that points to *strings*, one after the other."""
    places = [image.find(b"\0" + text + b"\0") + 1 for text in strings]
    if 0 in places:
        return None
    array = struct.pack(f"<{len(places)}Q", *(start + place for place in places))
    at = image.find(array)
    return start + at if at >= 0 and image.find(array, at + 1) < 0 else None


def find_thread_size(prog: Program) -> Object | None:
    """
    Return THREAD_SIZE, by the size of a task's stack.

    drgn takes it from the size of a variable that is not exported, init_stack.
    """
    page = prog["PAGE_SIZE"].value_()
    tasks = prog["init_task"].tasks.address_of_()
    for task in islice(list_for_each_entry("struct task_struct", tasks, "tasks"), 16):
        area = task.stack_vm_area
        if area and area.addr == task.stack:
            size = area.size.value_() - page  # A guard page follows each.
            if page <= size <= _MAX_STACK and not size & (size - 1):
                return Object(prog, "unsigned long", size)
    return None


def add_per_cpu_variables(symbols: SymbolTable, btf: Btf) -> SymbolTable:
    """
    Return *symbols* with all per-CPU variables.

    BTF says how far each is from the start of their section. Those whose addresses are
    known say where that is, if they agree.
    """
    places: dict[str, int] = {}
    for section in btf.listed[BtfKind.DATASEC]:
        for type_id, offset in btf.section_variables(btf.type(section)):
            places.setdefault(btf.type(type_id).name, offset)
    known = {row.name: row.address for row in symbols}
    starts = {known[name] - at for name, at in places.items() if name in known}
    if len(starts) != 1:
        return symbols
    start = starts.pop()
    # The true end is not known; no variable starts behind the last one.
    places |= {"__per_cpu_start": 0, "__per_cpu_end": max(places.values()) + 1}
    found = [
        SymbolRow(start + offset, name, _VARIABLE)
        for name, offset in places.items()
        if name not in known
    ]
    return make_symbols([*symbols, *found])


def lacks_unwind_tables(symbols: SymbolTable, btf: Btf) -> bool:
    """Return whether a kernel is unwound by ORC tables, and they were not found."""
    if symbols.find("__start_orc_unwind", one=True):
        return False
    module = btf.find("mod_arch_specific", {BtfKind.STRUCT})
    if module is None:
        return False
    return any(it.name == "num_orcs" for it in btf.members(btf.type(module)))


def _read_image(info: VmcoreInfo, memory: Memory) -> tuple[int, bytes]:
    """Return the kernel's image and its virtual address, with zeros for holes."""
    image = arch_from_info(info).image(info)
    end = image.physical + min(image.size, _MAX_IMAGE)
    pieces = []
    for at in range(image.physical, end, _CHUNK):
        size = min(_CHUNK, end - at)
        try:
            pieces.append(memory.read(at, size))
        except NotCapturedError:
            pieces += _read_pages(memory, at, size)
    return image.virtual, b"".join(pieces)


def _read_pages(memory: Memory, address: int, size: int) -> Iterator[bytes]:
    for at in range(address, address + size, PAGE_SIZE):
        try:
            yield memory.read(at, PAGE_SIZE)
        except NotCapturedError:
            yield bytes(PAGE_SIZE)


def _named(info: VmcoreInfo, image: range) -> Iterator[tuple[str, int]]:
    """Yield the variables whose addresses VMCOREINFO has."""
    for key in info.values:
        if key.startswith("SYMBOL("):
            name = key[len("SYMBOL(") : -1]
            with contextlib.suppress(FormatError):
                # Of some arrays it has the value, which may be allocated.
                if (address := info.symbol(name)) in image:
                    yield name, address
