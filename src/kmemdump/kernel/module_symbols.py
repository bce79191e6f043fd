# SPDX-License-Identifier: GPL-2.0-or-later
"""A symbol of a module by its name, which reads the symbols of all modules."""

from __future__ import annotations

from itertools import islice

from drgn import Program, Symbol
from drgn.helpers.linux.kallsyms import module_kallsyms
from drgn.helpers.linux.module import for_each_module

from kmemdump.kernel.debug_info import plain_symbol
from kmemdump.kernel.optional import ABSENT

__all__ = ["find_module_symbol"]

_MAX_MODULES = 2000


def find_module_symbol(prog: Program, name: str) -> Symbol | None:
    """
    Return the first symbol of that name, as the source has it.

    A module whose symbols are not in the dump is passed over.

    :return: ``None`` if no module has one, or the list of modules cannot be read.
    """
    try:
        for module in islice(for_each_module(prog), _MAX_MODULES):
            try:
                for symbol in map(plain_symbol, module_kallsyms(module)):
                    if symbol.name == name:
                        return symbol
            except ABSENT:
                continue
    except ABSENT:
        pass
    return None
