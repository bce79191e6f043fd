# SPDX-License-Identifier: GPL-2.0-or-later
"""What is at an address: a symbol, and the module that it belongs to."""

from __future__ import annotations

from drgn import MainModule, Program

from kmemdump.kernel.symbol_names import plain_name

__all__ = ["find_symbol", "place_of_code"]


def find_symbol(
    prog: Program, address: int
) -> tuple[str | None, int | None, str | None]:
    """Return the symbol of an address, the offset in it, and the module, if known."""
    name = offset = None
    try:
        symbol = prog.symbol(address)
        # A vmlinux has the names that the compiler made.
        name, offset = plain_name(symbol.name), address - symbol.address
    except LookupError:
        pass
    return name, offset, _find_module(prog, address)


def place_of_code(prog: Program, address: int, *, end: bool = False) -> str:
    """
    Return an address of code as the kernel prints it: ``f+0x12/0x34 [module]``.

    The size is the symbol's own; of a module's, the kernel prints how far the next is.

    :param end: Whether it is the end of the code that is meant, as the address to which
        a call returns is.
    """
    inside = address - end
    module = _find_module(prog, inside)
    try:
        symbol = prog.symbol(inside)
    except LookupError:
        place = f"{address:#x}"
    else:
        offset = address - symbol.address
        place = f"{plain_name(symbol.name)}+{offset:#x}/{symbol.size:#x}"
    return place + (f" [{module}]" if module else "")


def _find_module(prog: Program, address: int) -> str | None:
    try:
        found = prog.module(address)
    except LookupError:
        return None
    return None if isinstance(found, MainModule) else found.name
