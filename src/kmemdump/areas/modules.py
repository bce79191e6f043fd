# SPDX-License-Identifier: GPL-2.0-or-later
"""Loaded modules, with the tables for naming and unwinding their code."""

from drgn import FaultError, Program

from kmemdump.arch.architecture import arch_from_program
from kmemdump.areas.area import area, read_bytes
from kmemdump.kernel.loaded_modules import loaded_modules
from kmemdump.questions.objects import each

__all__ = ["MODULES"]

_MAX_SYMTAB = 1 << 24


def module_tables(prog: Program) -> None:
    """Symbols and unwind tables of each module."""
    arch = arch_from_program(prog)
    for module in each("modules", loaded_modules(prog)):
        print(module.name.string_().decode("ascii", "backslashreplace"))
        read_bytes(prog, module.value_(), module.type_.type.size, 1 << 16)
        try:
            tables = module.kallsyms.read_()
            symbols = tables.num_symtab.value_()
            strings = tables.symtab[symbols - 1].st_name.value_() + 512
            read_bytes(prog, tables.symtab.value_(), symbols * 24, _MAX_SYMTAB)
            read_bytes(prog, tables.strtab.value_(), strings, _MAX_SYMTAB)
            read_bytes(prog, tables.typetab.value_(), symbols, _MAX_SYMTAB)
        except (FaultError, AttributeError, LookupError):
            pass  # A kernel without CONFIG_KALLSYMS.
        for table in arch.module_tables(module):
            read_bytes(prog, table.start, table.size, _MAX_SYMTAB)


MODULES = area(
    "modules",
    "loaded modules, their symbols and unwind tables",
    "mod",
    module_tables,
    variables=("modules", "mod_tree"),
)
