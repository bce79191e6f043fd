# SPDX-License-Identifier: GPL-2.0-or-later
"""A symbol of a module by its name, which reads the symbols of all modules."""

from __future__ import annotations

from drgn import Program, Symbol
from drgn.helpers.linux.kallsyms import module_kallsyms

from kmemdump.kernel.debug_info import plain_symbol
from kmemdump.kernel.loaded_modules import loaded_modules
from kmemdump.kernel.optional import ABSENT

__all__ = ["find_module_symbol"]


def find_module_symbol(prog: Program, name: str) -> Symbol | None:
    """
    Return the first symbol of that name, as the source has it.

    A module whose symbols are not in the dump is passed over.

    :return: ``None`` if no module has one, or the list of modules cannot be read.
    """
    try:
        for module in loaded_modules(prog):
            try:
                for symbol in map(plain_symbol, module_kallsyms(module)):
                    if symbol.name == name:
                        return symbol
            except ABSENT:
                continue
    except ABSENT:
        pass
    return None
