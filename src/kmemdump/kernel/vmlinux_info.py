# SPDX-License-Identifier: GPL-2.0-or-later
"""
Symbols and types of a vmlinux, for a core image that needs no vmlinux.

A vmlinux has a hundred thousand types in a form of its own. So finders that find
nothing note what is asked for while a kernel is looked at, and only that is encoded,
with all that it refers to.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from drgn import (
    FindObjectFlags,
    Program,
    Symbol,
    SymbolBinding,
    SymbolKind,
    TypeKind,
    TypeKindSet,
)

from kmemdump.errors import FormatError
from kmemdump.formats.btf import parse_btf
from kmemdump.formats.symbols import SymbolRow, SymbolTable, make_symbols
from kmemdump.kernel.debug_info import DebugInfo, per_cpu_types
from kmemdump.kernel.optional import optional
from kmemdump.kernel.type_encoder import TypeEncoder
from kmemdump.kernel.variables import VARIABLES
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["Asked", "read_vmlinux_info"]

_NAME = "kmemdump asked"
_KEYWORDS = {
    TypeKind.STRUCT: "struct ",
    TypeKind.CLASS: "struct ",
    TypeKind.UNION: "union ",
    TypeKind.ENUM: "enum ",
}
_BEYOND = 64 << 20
"""Most bytes between the end of a vmlinux's sections and its last symbol."""


class Asked:
    """The names of types and objects that were asked for in a program."""

    def __init__(self) -> None:
        self.types: set[str] = set()
        """As C spells them."""
        self.objects: set[str] = set()
        """Variables, constants and functions."""

    def register(self, prog: Program) -> None:
        """Let drgn ask this first."""
        prog.register_type_finder(_NAME, self._find_type, enable_index=0)
        prog.register_object_finder(_NAME, self._find_object, enable_index=0)

    def _find_type(
        self, _prog: Program, kinds: TypeKindSet, name: str, filename: str | None
    ) -> None:
        if filename is None:
            self.types.update(f"{_KEYWORDS.get(kind, '')}{name}" for kind in kinds)

    def _find_object(
        self, _prog: Program, name: str, _flags: FindObjectFlags, filename: str | None
    ) -> None:
        if filename is None:
            self.objects.add(name)


def read_vmlinux_info(
    prog: Program, info: VmcoreInfo, asked: Asked, own: DebugInfo | None
) -> DebugInfo:
    """
    Return symbols and types of a kernel whose vmlinux drgn has loaded.

    :param asked: What answers take; the types of our table of variables are added.
    :param own: What was found in the kernel's memory; its types are the first.
    :raises FormatError: If the vmlinux has no symbols.
    """
    start, end = _bounds(prog)
    symbols = _symbols(prog, info, start, end)
    base = own.btf if own is not None else None
    encoder = TypeEncoder(base)
    variables: dict[str, int] = {}
    names, types = asked.objects | set(VARIABLES), set(asked.types)
    for name in sorted(types):
        if (type := optional(partial(prog.type, name))) is not None:
            encoder.encode(type)
    for name in sorted(names):
        variable = optional(partial(prog.variable, name))
        if variable is not None:
            variables[name] = encoder.encode(variable.type_)
            continue
        other = optional(partial(prog.constant, name))
        if other is not None:
            encoder.encode(other.type_)
            continue
        function = optional(partial(prog.function, name))
        if function is not None:
            encoder.function(name, function.type_)
    source = f"{info.source}: types of the vmlinux"
    btf = parse_btf(encoder.data(), source, base)
    found = symbols.find("_stext", one=True)
    if not found:
        raise FormatError(source, "no symbol _stext")
    last = symbols.find("_end", one=True)
    return DebugInfo(
        symbols,
        btf,
        found[0].address,
        last[0].address if last else end,
        per_cpu_types(base) if base is not None else {},
        variables,
    )


def _bounds(prog: Program) -> tuple[int, int]:
    ranges = prog.main_module().address_ranges or [(0, 0)]
    return min(it[0] for it in ranges), max(it[1] for it in ranges)


def _symbols(prog: Program, info: VmcoreInfo, start: int, end: int) -> SymbolTable:
    shift = info.kernel_offset

    def rows() -> Iterator[SymbolRow]:
        every: list[Symbol] = prog.symbols()
        for symbol in every:
            name, address = symbol.name, symbol.address
            # "$x" and ".L1" mark places in code; files and sections have no address.
            if not name or name[0] in "$." or symbol.kind in _NO_PLACE:
                continue
            # drgn moves only the symbols of sections: not those at the very end.
            if not start <= address < end and (
                start <= address + shift < end + _BEYOND
            ):
                address += shift
            yield SymbolRow(address, name, _info(symbol), symbol.size)

    return make_symbols(rows())


_NO_PLACE = (SymbolKind.FILE, SymbolKind.SECTION)
# By identity: an enumeration's members are slow to hash, and there are half a million.
_KINDS: dict[int, int] = {id(kind): kind.value & 15 for kind in SymbolKind}
_BOUND: dict[int, int] = {
    id(binding): (binding.value - 1 & 15) << 4 for binding in SymbolBinding
}


def _info(symbol: Symbol) -> int:
    """Return ``st_info`` of a symbol; see :class:`SymbolRow`."""
    return _KINDS[id(symbol.kind)] | _BOUND[id(symbol.binding)]
