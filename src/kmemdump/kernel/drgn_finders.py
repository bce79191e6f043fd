# SPDX-License-Identifier: GPL-2.0-or-later
"""Let a :class:`drgn.Program` find symbols, types, variables and constants."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from drgn import (
    FaultError,
    FindObjectFlags,
    Object,
    Program,
    Symbol,
    SymbolIndex,
    SymbolKind,
    Type,
    TypeKindSet,
)
from drgn.helpers.linux.kallsyms import module_kallsyms
from drgn.helpers.linux.module import module_address_regions

from kmemdump.kernel.debug_info import DebugInfo, plain_symbol
from kmemdump.kernel.loaded_modules import loaded_modules
from kmemdump.kernel.partial_symbols import find_thread_size
from kmemdump.kernel.types import BtfTypes
from kmemdump.kernel.variables import variable

__all__ = ["register_finders"]

_MAX_PLACES = 1 << 14
_NAME = "kmemdump"
"""Name of our finders in a program."""


def register_finders(prog: Program, get: Callable[[], DebugInfo | None]) -> None:
    """
    Register finders for symbols, types, variables and constants with *prog*.

    drgn asks them after all others, so that debug info from files has precedence.

    :param get: Returns the kernel's own debug info when it is first needed; ``None``
        if there is none.
    """
    finders = _Finders(prog, get)
    last = len(prog.enabled_symbol_finders())
    prog.register_symbol_finder(_NAME, finders.find_symbol, enable_index=last)
    last = len(prog.enabled_type_finders())
    prog.register_type_finder(_NAME, finders.find_type, enable_index=last)
    last = len(prog.enabled_object_finders())
    prog.register_object_finder(_NAME, finders.find_object, enable_index=last)


class _Finders:
    """The finders of one program, as drgn calls them."""

    def __init__(self, prog: Program, get: Callable[[], DebugInfo | None]) -> None:
        self._prog = prog
        self._get = get
        self._made: BtfTypes | None = None
        self._modules = _ModuleSymbols(prog)
        self._objects: dict[tuple[str, FindObjectFlags], Object | None] = {}
        self._symbols: dict[tuple[int, bool], Sequence[Symbol]] = {}

    def find_symbol(
        self, _prog: Program, name: str | None, address: int | None, one: bool
    ) -> Sequence[Symbol]:
        info = self._get()
        found: Sequence[Symbol] = []
        if info is not None and name is None and address is not None:
            # The frames of hundreds of stacks have the same few places.
            if (address, one) not in self._symbols:
                if len(self._symbols) >= _MAX_PLACES:
                    self._symbols.clear()
                self._symbols[address, one] = info.find(None, address, one)
            found = self._symbols[address, one]
        elif info is not None:
            found = info.find(name, address, one)
        if not found and address is not None:
            found = self._modules.find(address, one)
        return found

    def find_type(
        self, prog: Program, kinds: TypeKindSet, name: str, filename: str | None
    ) -> Type | None:
        types = self._types()
        return types.find(prog, kinds, name, filename) if types else None

    def find_object(
        self, _prog: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> Object | None:
        if filename is not None:
            return None
        # Helpers look up the same few names a thousand times.
        if (name, flags) not in self._objects:
            self._objects[name, flags] = self._make_object(name, flags)
        return self._objects[name, flags]

    def _types(self) -> BtfTypes | None:
        if self._made is None:
            info = self._get()
            self._made = BtfTypes(self._prog, info.btf) if info else None
        return self._made

    def _make_object(self, name: str, flags: FindObjectFlags) -> Object | None:
        info, types = self._get(), self._types()
        if info is None or types is None:
            return None
        found, symbol = None, info.symbol(name)
        if symbol is not None and flags & FindObjectFlags.VARIABLE:
            found = self._variable(info, types, symbol)
        if symbol is not None and found is None and flags & FindObjectFlags.FUNCTION:
            type = types.function(name)
            if type is None and symbol.kind == SymbolKind.FUNC:
                # BTF of 5.10 lacks functions, as vmemmap_populate(), for which drgn
                # looks. Their parameters are not known.
                prog = self._prog
                type = prog.function_type(prog.void_type(), (), is_variadic=True)
            if type is not None:
                found = Object(self._prog, type, address=symbol.address)
        if found is None and flags & FindObjectFlags.CONSTANT:
            found = types.constant(name)
            if found is None and name == "THREAD_SIZE" and info.lacks:
                with contextlib.suppress(LookupError, FaultError, AttributeError):
                    found = find_thread_size(self._prog)
        return found

    def _variable(
        self, info: DebugInfo, types: BtfTypes, symbol: Symbol
    ) -> Object | None:
        name = symbol.name
        type_id = info.variables.get(name) or info.per_cpu.get(name)
        if type_id is not None:
            type = types.make(type_id)
            return Object(self._prog, type, address=symbol.address)
        try:
            return variable(self._prog, name, symbol)
        except LookupError:
            return None  # This kernel has no such type.


class _ModuleSymbols:
    """Symbols of loaded modules, read when an address in a module is looked up."""

    def __init__(self, prog: Program) -> None:
        self._prog = prog
        self._regions: list[tuple[int, int, Object]] | None = None
        self._loaded: dict[int, SymbolIndex] = {}
        self._busy = False

    def find(self, address: int, one: bool) -> Sequence[Symbol]:
        if self._busy:  # Reading the list of modules looks up symbols, too.
            return []
        self._busy = True
        try:
            if self._regions is None:
                self._regions = self._find_regions()
            for start, size, module in self._regions:
                if start <= address < start + size:
                    symbols = self._symbols(module)
                    found: Sequence[Symbol] = symbols(self._prog, None, address, one)
                    return found
        except (LookupError, FaultError, AttributeError):
            pass  # The list of modules is absent or damaged.
        finally:
            self._busy = False
        return []

    def _find_regions(self) -> list[tuple[int, int, Object]]:
        self._regions = []
        for module in loaded_modules(self._prog):
            for start, size in module_address_regions(module):
                self._regions.append((start, size, module))
        return self._regions

    def _symbols(self, module: Object) -> SymbolIndex:
        key = module.value_()
        if key not in self._loaded:
            found = (plain_symbol(symbol) for symbol in module_kallsyms(module))
            self._loaded[key] = SymbolIndex(found)
        return self._loaded[key]
