# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a kernel says about itself: addresses from kallsyms, types from BTF.

Both lie in the kernel's own memory and never change while it runs, so they are
read once and shared by every :class:`drgn.Program` on the same kernel.
"""

from __future__ import annotations

import contextlib
import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from drgn import (
    FaultError,
    FindObjectFlags,
    Object,
    Program,
    Symbol,
    SymbolIndex,
    Type,
)
from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms, module_kallsyms
from drgn.helpers.linux.module import for_each_module, module_address_regions

from kmemdump.arch.architecture import get_arch
from kmemdump.errors import BudgetExceededError, FormatError, UnsupportedError
from kmemdump.formats.btf import MAX_SIZE, Btf, parse_btf
from kmemdump.kernel.program import core_program
from kmemdump.kernel.types import BtfTypes
from kmemdump.kernel.variables import variable
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["Knowledge", "equip", "learn"]

_MAX_SYMBOLS = 4 << 20
_MAX_SYMBOL_SIZE = 1 << 20
_MAX_KALLSYMS = 128 << 20
FINDER = "kmemdump"
"""Name of our finders in a program."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Addresses and types of one kernel."""

    symbols: SymbolIndex
    btf: Btf
    start: int
    """Address of the kernel image; below it, kallsyms has per-CPU offsets."""
    end: int
    per_cpu: dict[str, int] = field(default_factory=dict)
    """Per-CPU variables: name and BTF type id."""
    _addresses: array[int] = field(default_factory=lambda: array("Q"), repr=False)
    """Of all symbols, sorted; filled when it is first needed."""

    def symbol(self, name: str) -> Symbol | None:
        """Return the symbol with this name, or ``None``."""
        found = self.find(name, None, True)
        return found[0] if found else None

    def find(
        self, name: str | None, address: int | None, one: bool
    ) -> Sequence[Symbol]:
        """Find symbols as drgn's symbol finders do."""
        if address is not None and not self.start <= address < self.end:
            return []
        if name is None:
            at: Sequence[Symbol] = self.symbols(None, None, address, False)
            return [min(at, key=_rank)] if one and at else at
        found: Sequence[Symbol] = self.symbols(None, name, address, one)
        return [self._with_size(symbol) for symbol in found]

    def _with_size(self, symbol: Symbol) -> Symbol:
        # kallsyms hold no sizes: a symbol ends where the next one starts. drgn gives
        # those none whose next one is further than a page away.
        if symbol.size:
            return symbol
        if not self._addresses:
            every: Sequence[Symbol] = self.symbols(None, None, None, False)
            self._addresses.extend(sorted({item.address for item in every}))
        after = bisect_right(self._addresses, symbol.address)
        size = 0
        if after < len(self._addresses):
            size = self._addresses[after] - symbol.address
            if size > _MAX_SYMBOL_SIZE:
                size = 0  # Something without a symbol lies between.
        return Symbol(symbol.name, symbol.address, size, symbol.binding, symbol.kind)


# may_be_linker_script_provide_symbol(), Linux scripts/kallsyms.c.
_PROVIDED = re.compile(r"__(?:start|stop|end)_.*|__.*_(?:start|end)")


def _rank(symbol: Symbol) -> tuple[bool, int]:
    # Of symbols with the same address the kernel names the one that it sorts first.
    name = symbol.name
    provided = len(name) >= 8 and _PROVIDED.fullmatch(name) is not None
    return provided, len(name) - len(name.lstrip("_"))


def learn(prog: Program, info: VmcoreInfo, machine: int) -> Knowledge:
    """
    Read kallsyms and BTF out of a kernel's memory.

    :param prog: A program for the kernel that has no symbols yet.
    :raises UnsupportedError: If the kernel lacks one of the two.
    :raises FormatError: If one of them is damaged.
    """
    source = info.source
    try:
        symbols = load_vmlinux_kallsyms(_kallsyms_only(prog, info, machine))
    except BudgetExceededError:
        raise
    except Exception as error:  # Of many kinds, if the tables are damaged.
        raise UnsupportedError(
            f"{source}: no kallsyms in the kernel's memory ({error}); {_advice(info)}"
        ) from error
    bounds = [symbols(prog, name, None, True) for name in ("__start_BTF", "__stop_BTF")]
    if not all(bounds):
        missing = "no types: there is no BTF (CONFIG_DEBUG_INFO_BTF is not set)"
        if not symbols(prog, "init_uts_ns", None, True):
            missing = (
                "neither variables nor types: its kallsyms name functions only "
                "(CONFIG_KALLSYMS_ALL is not set)"
            )
        raise UnsupportedError(
            f"{source}: the kernel's memory tells of {missing}; {_advice(info)}"
        )
    start, stop = (found[0].address for found in bounds)
    if not 0 < stop - start <= MAX_SIZE:
        raise FormatError(source, f"BTF of {stop - start} bytes at {start:#x}")
    try:
        data = prog.read(start, stop - start)
    except FaultError as error:
        raise UnsupportedError(f"{source}: cannot read BTF: {error}") from error
    _read_tables(prog, symbols, get_arch(machine).unwind_tables)
    btf = parse_btf(data, f"{source}: BTF at {start:#x}")
    per_cpu: dict[str, int] = {}
    for section in btf.data_sections:
        for type_id, _ in btf.section_variables(btf.type(section)):
            var = btf.type(type_id)
            per_cpu.setdefault(var.name, var.size_or_type)
    image = [symbols(prog, name, None, True) for name in ("_stext", "_end")]
    if not all(image):
        raise FormatError(source, "kallsyms lack _stext and _end")
    return Knowledge(symbols, btf, image[0][0].address, image[1][0].address, per_cpu)


def _advice(info: VmcoreInfo) -> str:
    release = info.osrelease
    return (
        f"give the debug file of {release} with --vmlinux (in Debian it is "
        f"vmlinux-{release} of the package linux-image-{release}-dbg)"
    )


def _read_tables(prog: Program, symbols: SymbolIndex, names: Sequence[str]) -> None:
    # drgn reads them itself when it unwinds; they belong to what never changes, so they
    # are recorded here.
    for name in names:
        bounds = [
            symbols(prog, f"__{end}_{name}", None, True) for end in ("start", "stop")
        ]
        if all(bounds):
            start, stop = (found[0].address for found in bounds)
            if 0 < stop - start <= MAX_SIZE:
                with contextlib.suppress(FaultError):
                    prog.read(start, stop - start)


def _kallsyms_only(prog: Program, info: VmcoreInfo, machine: int) -> Program:
    # drgn reads kallsyms in pieces of a few bytes, half a million of them, which is
    # slow through a Python callback: give it a copy of the tables.
    names = ("names", "num_syms", "token_table", "token_index", "offsets")
    tables = {name: info.symbol(f"kallsyms_{name}") for name in names}
    base = info.symbol("kallsyms_relative_base")
    count = prog.read_u32(tables["num_syms"])
    if not 0 < count <= _MAX_SYMBOLS:
        raise ValueError(f"{count} symbols")
    ends = [tables["token_index"] + 512, tables["offsets"] + 4 * count, base + 8]
    start = min(*tables.values(), base)
    end = max(ends)
    if tables["names"] >= end or end - start > _MAX_KALLSYMS:
        raise ValueError(f"tables from {start:#x} to {end:#x}")
    return core_program(
        machine, info, info.source, segments=[(start, prog.read(start, end - start))]
    )


def equip(prog: Program, get: Callable[[], Knowledge | None]) -> None:
    """
    Register finders for symbols, types, variables and constants with *prog*.

    They come after all others, so that debug info, where there is some, wins.

    :param get: Returns the knowledge when it is first needed, ``None`` if there
        is none.
    """

    made: BtfTypes | None = None

    def types() -> BtfTypes | None:
        nonlocal made
        if made is None:
            knowledge = get()
            made = BtfTypes(prog, knowledge.btf) if knowledge else None
        return made

    modules = _ModuleSymbols(prog)

    def find_symbol(
        prog: Program, name: str | None, address: int | None, one: bool
    ) -> Sequence[Symbol]:
        knowledge = get()
        found: Sequence[Symbol] = []
        if knowledge is not None:
            found = knowledge.find(name, address, one)
        if not found and address is not None:
            found = modules.find(address, one)
        return found

    def find_type(
        prog: Program, kinds: object, name: str, filename: str | None
    ) -> Type | None:
        finder = types()
        return finder.find(prog, kinds, name, filename) if finder else None

    objects: dict[tuple[str, FindObjectFlags], Object | None] = {}

    def find_object(
        prog: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> Object | None:
        if filename is not None:
            return None
        # Helpers look the same few up a thousand times.
        if (name, flags) not in objects:
            objects[name, flags] = make_object(prog, name, flags)
        return objects[name, flags]

    def make_object(prog: Program, name: str, flags: FindObjectFlags) -> Object | None:
        knowledge, finder = get(), types()
        if knowledge is None or finder is None:
            return None
        if flags & FindObjectFlags.VARIABLE:
            symbol = knowledge.symbol(name)
            if symbol is not None:
                if name in knowledge.per_cpu:
                    type = finder.make(knowledge.per_cpu[name])
                    return Object(prog, type, address=symbol.address)
                try:
                    found = variable(prog, name, symbol)
                except LookupError:
                    found = None  # This kernel has no such type.
                if found is not None:
                    return found
        if flags & FindObjectFlags.FUNCTION:
            function = finder.function(name)
            symbol = knowledge.symbol(name) if function is not None else None
            if symbol is not None:
                return Object(prog, function, address=symbol.address)
        if flags & FindObjectFlags.CONSTANT:
            return finder.constant(name)
        return None

    last = len(prog.enabled_symbol_finders())
    prog.register_symbol_finder(FINDER, find_symbol, enable_index=last)
    last = len(prog.enabled_type_finders())
    prog.register_type_finder(FINDER, find_type, enable_index=last)
    last = len(prog.enabled_object_finders())
    prog.register_object_finder(FINDER, find_object, enable_index=last)


class _ModuleSymbols:
    """Symbols of loaded modules, read a module at a time when an address is in it."""

    def __init__(self, prog: Program) -> None:
        self._prog = prog
        self._regions: list[tuple[int, int, Object]] | None = None
        self._loaded: dict[int, SymbolIndex] = {}
        self._busy = False

    def find(self, address: int, one: bool) -> Sequence[Symbol]:
        if self._busy:  # Reading the module list looks symbols up itself.
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
            pass  # No module list, or a damaged one: then there are no symbols.
        finally:
            self._busy = False
        return []

    def _find_regions(self) -> list[tuple[int, int, Object]]:
        self._regions = []
        for module in for_each_module(self._prog):
            for start, size in module_address_regions(module):
                self._regions.append((start, size, module))
        return self._regions

    def _symbols(self, module: Object) -> SymbolIndex:
        key = module.value_()
        if key not in self._loaded:
            self._loaded[key] = SymbolIndex(module_kallsyms(module))
        return self._loaded[key]
