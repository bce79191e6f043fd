# SPDX-License-Identifier: GPL-2.0-or-later
"""Find what is the kernel build's own: code, constants, symbols, page tables."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from drgn import Object, Program, sizeof
from drgn.helpers.linux.module import for_each_module

from kmemdump.arch.architecture import (
    arch_from_info,
    arch_from_program,
    image_address,
)
from kmemdump.arch.pagetable import walk
from kmemdump.errors import NotCapturedError
from kmemdump.kernel.limits import MAX_MODULES
from kmemdump.memory.ranges import Range, parts_in, subtract
from kmemdump.redaction.places import ABSENT, Places

__all__ = ["image", "is_known_symbol", "modules"]

_MAX_TABLE = 16 << 20
_MAX_VMCOREINFO = 1 << 16
_OWN_RANGES = (
    ("_stext", "_etext"),
    ("__start_rodata", "__end_rodata"),
    ("__start_orc_unwind", "__stop_orc_unwind"),
    ("__start_orc_unwind_ip", "__stop_orc_unwind_ip"),
    ("__start_orc_header", "__stop_orc_header"),
    ("orc_lookup", "orc_lookup_end"),
    ("__start___bug_table", "__stop___bug_table"),
)
"""Parts of the image that are as they were built."""
_NOT_OWN = (("__start_ro_after_init", "__end_ro_after_init"),)
"""Parts of them that the kernel wrote when it started."""


def image(places: Places) -> None:
    """The image's constants, and the page table."""
    info = places.kernel.vmcoreinfo
    own = [*_symbol_ranges(places, _OWN_RANGES)]
    for item in subtract(own, _symbol_ranges(places, _NOT_OWN)):
        places.image_constants(item)

    def read_table(address: int, size: int) -> bytes:
        """Read a page table, zeros where it is not captured, and note it."""
        held = [*parts_in(Range(address, size), places.memory.ranges)]
        if not held:
            raise NotCapturedError(f"{address:#x} is not captured")
        data = bytearray(size)
        for item in held:
            at = item.start - address
            data[at : at + item.size] = places.memory.read(item.start, item.size)
        places.known.structure += held
        return bytes(data)

    for _ in walk(arch_from_info(info).page_table(info), read_table):
        pass
    data, size = places.prog["vmcoreinfo_data"], places.prog["vmcoreinfo_size"]
    places.own(data.value_(), min(size.value_(), _MAX_VMCOREINFO))


def _symbol_ranges(
    places: Places, pairs: tuple[tuple[str, str], ...]
) -> Iterator[Range]:
    for first, last in pairs:
        try:
            start, end = (places.prog.symbol(it).address for it in (first, last))
        except LookupError:
            continue
        if start < end:
            physical = image_address(places.kernel.vmcoreinfo, start)
            yield Range(physical, end - start)


def modules(places: Places) -> None:
    """Modules: code, constants and symbols are their builds' own."""
    for module in islice(for_each_module(places.prog), MAX_MODULES):
        try:
            _module(places, module)
        except ABSENT:
            continue  # Half of it is missing.


def _module(places: Places, module: Object) -> None:
    places.known.modules.add(module.name.string_().decode("latin-1"))
    places.text("module-names", module.name.address_, sizeof(module.name))
    for start, size in _constant_parts(module):
        places.constants(start, size)
    for table in arch_from_program(places.prog).module_tables(module):
        places.own(table.start, min(table.size, _MAX_TABLE))
    tables = module.kallsyms.read_()
    count = tables.num_symtab.value_()
    names = tables.symtab[count - 1].st_name.value_() + 512
    for start, size in (
        (tables.symtab, count * sizeof(tables.symtab[0])),
        (tables.strtab, names),
        (tables.typetab, count),
    ):
        places.own(start.value_(), min(size, _MAX_TABLE))


def _constant_parts(module: Object) -> Iterator[tuple[int, int]]:
    """Yield addresses and sizes of a module's code and constants."""
    # Since Linux kernel commit ac3b432839234 ("module: replace module_layout with
    # module_memory") (in v6.4), before that in layouts that begin with them.
    try:
        kinds = [
            module.prog_.constant(name).value_() for name in ("MOD_TEXT", "MOD_RODATA")
        ]
    except LookupError:
        layout = module.core_layout
        yield layout.base.value_(), min(layout.ro_size.value_(), _MAX_TABLE)
        return
    for kind in kinds:
        part = module.mem[kind]
        yield part.base.value_(), min(part.size.value_(), _MAX_TABLE)


def is_known_symbol(prog: Program, name: str) -> bool:
    """Return whether the kernel, or a module of it, has a symbol."""
    try:
        prog.symbol(name)
    except LookupError:
        return False
    return True
