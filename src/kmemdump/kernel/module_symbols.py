# SPDX-License-Identifier: GPL-2.0-or-later
"""A symbol of a module by its name, which reads the symbols of modules."""

from __future__ import annotations

from drgn import Program, Symbol
from drgn.helpers.linux.kallsyms import module_kallsyms

from kmemdump.kernel.debug_info import plain_symbol
from kmemdump.kernel.loaded_modules import loaded_modules
from kmemdump.kernel.optional import ABSENT

__all__ = ["find_module_symbol"]


def find_module_symbol(
    prog: Program, name: str, module_name: str | None = None
) -> Symbol | None:
    """
    Return the first symbol of that name, as the source has it.

    A module whose symbols are not in the dump is passed over.

    :param module_name: The one to look in; all if it is not given.
    :return: ``None`` if no module has one, or the list of modules cannot be read.
    """
    try:
        for module in loaded_modules(prog):
            name_of_it = module.name.string_().decode("utf-8", "replace")
            if module_name not in (None, name_of_it):
                continue
            try:
                for symbol in map(plain_symbol, module_kallsyms(module)):
                    if symbol.name == name:
                        return symbol
            except ABSENT:
                continue
    except ABSENT:
        pass
    return None
