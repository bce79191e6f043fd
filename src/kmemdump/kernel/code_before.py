# SPDX-License-Identifier: GPL-2.0-or-later
"""The code before a function's start, as a place, such as a call that never returns."""

from __future__ import annotations

from collections.abc import Iterable

from drgn import Program, Symbol

from kmemdump.kernel.module_symbols import find_module_symbol
from kmemdump.kernel.optional import ABSENT
from kmemdump.kernel.symbol_at import place_of_code

__all__ = ["find_code_before"]


def find_code_before(
    prog: Program, starts: Iterable[tuple[str, str | None]]
) -> dict[tuple[str, str | None], str]:
    """
    Return where functions begin, as the ends of the functions before them.

    :param starts: Functions and their modules. One that is not found, or whose name
        several have, is left out.
    :return: Places as the kernel prints them: ``f+0x34/0x34 [module]``.
    """
    found = {}
    for name, module in starts:
        try:
            symbol = _find(prog, name, module)
            if symbol is not None and prog.symbol(symbol.address - 1):
                found[name, module] = place_of_code(prog, symbol.address, end=True)
        except ABSENT:
            continue
    return found


def _find(prog: Program, name: str, module: str | None) -> Symbol | None:
    if module is not None:
        return find_module_symbol(prog, name, module)
    symbols = prog.symbols(name)
    return symbols[0] if len(symbols) == 1 else None
