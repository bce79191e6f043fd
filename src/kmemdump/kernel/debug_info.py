# SPDX-License-Identifier: GPL-2.0-or-later
"""
The debug info in a kernel's own memory: symbols from kallsyms, types from BTF.

Neither changes while the kernel runs, so they are read once and shared by every
:class:`drgn.Program` on the same kernel.
"""

from __future__ import annotations

import contextlib
import re
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from drgn import FaultError, Program, Symbol, SymbolIndex
from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.errors import (
    BudgetExceededError,
    FormatError,
    NotCapturedError,
    UnsupportedError,
)
from kmemdump.formats.btf import MAX_SIZE, Btf, BtfKind, parse_btf
from kmemdump.kernel.debug_packages import find_debug_package
from kmemdump.kernel.limits import MAX_SYMBOLS
from kmemdump.kernel.program import core_program
from kmemdump.kernel.symbol_names import clone_of, plain_name
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["DebugInfo", "plain_symbol", "read_debug_info"]

_MAX_SYMBOL_SIZE = 1 << 20
_MAX_KALLSYMS = 128 << 20


@dataclass(frozen=True, slots=True)
class DebugInfo:
    """Symbols and types of one kernel."""

    symbols: SymbolIndex
    btf: Btf
    start: int
    """Start of the kernel image; addresses below it are per-CPU offsets."""
    end: int
    """End of the kernel image."""
    per_cpu: dict[str, int] = field(default_factory=dict)
    """BTF type ids of per-CPU variables, by name."""
    _index: _SymbolNames = field(default_factory=lambda: _SymbolNames(), repr=False)
    """Of all symbols; filled at first use."""

    def symbol(self, name: str) -> Symbol | None:
        """Return the symbol with this name, or ``None``."""
        found = self.find(name, None, True)
        return found[0] if found else None

    def find(
        self, name: str | None, address: int | None, one: bool
    ) -> Sequence[Symbol]:
        """
        Find symbols as drgn's symbol finders do.

        A name may lack what the compiler added to it; see
        :mod:`kmemdump.kernel.symbol_names`. Symbols are returned with plain names.
        """
        if address is not None and not self.start <= address < self.end:
            return []
        if name is None:
            at: Sequence[Symbol] = self.symbols(None, None, address, False)
            at = [plain_symbol(symbol) for symbol in at]
            return [min(at, key=_rank)] if one and at else at
        found: Sequence[Symbol] = self.symbols(None, name, address, one)
        if not found:
            self._fill_index()
            made = self._index.made_of.get(name, ())
            found = [
                it for other in made for it in self.symbols(None, other, address, False)
            ]
            found = found[:1] if one else found
        return [plain_symbol(self._with_size(symbol), name) for symbol in found]

    def _with_size(self, symbol: Symbol) -> Symbol:
        # kallsyms has no sizes: a symbol ends where the next one starts. drgn sets no
        # size where the next one is further than a page away.
        if symbol.size:
            return symbol
        self._fill_index()
        addresses = self._index.addresses
        after = bisect_right(addresses, symbol.address)
        size = 0
        if after < len(addresses):
            size = addresses[after] - symbol.address
            if size > _MAX_SYMBOL_SIZE:
                size = 0  # Memory without a symbol lies between.
        return Symbol(symbol.name, symbol.address, size, symbol.binding, symbol.kind)

    def _fill_index(self) -> None:
        if not self._index.addresses:
            self._index.fill(self.symbols(None, None, None, False))


class _SymbolNames:
    """All addresses and changed names of a kernel's symbols."""

    def __init__(self) -> None:
        self.addresses = array("Q")
        """Sorted."""
        self.made_of: dict[str, list[str]] = {}
        """By its plain name, what the compiler made of it; functions before clones."""

    def fill(self, symbols: Sequence[Symbol]) -> None:
        self.addresses.extend(sorted({item.address for item in symbols}))
        clones: dict[str, list[str]] = {}
        for name in dict.fromkeys(item.name for item in symbols):
            if "." not in name and "$" not in name:
                continue
            if (plain := plain_name(name)) != name:
                self.made_of.setdefault(plain, []).append(name)
            if base := clone_of(name):
                clones.setdefault(base, []).append(name)
        for plain, names in clones.items():
            self.made_of.setdefault(plain, names)


def plain_symbol(symbol: Symbol, name: str | None = None) -> Symbol:
    """
    Return a symbol with its plain name.

    :param name: Another name to give it.
    """
    name = name or plain_name(symbol.name)
    if name == symbol.name:
        return symbol
    return Symbol(name, symbol.address, symbol.size, symbol.binding, symbol.kind)


# may_be_linker_script_provide_symbol(), Linux scripts/kallsyms.c.
_PROVIDED = re.compile(r"__(?:start|stop|end)_.*|__.*_(?:start|end)")


def _rank(symbol: Symbol) -> tuple[bool, int]:
    # If symbols share an address, the kernel prints the one that sorts first.
    name = symbol.name
    provided = len(name) >= 8 and _PROVIDED.fullmatch(name) is not None
    return provided, len(name) - len(name.lstrip("_"))


def read_debug_info(prog: Program, info: VmcoreInfo, machine: int) -> DebugInfo:
    """
    Read kallsyms and BTF from a kernel's memory.

    :param prog: A program for the kernel that has no symbols yet.
    :raises UnsupportedError: If the kernel lacks one of the two.
    :raises FormatError: If one of them is damaged.
    """
    symbols = _read_kallsyms(prog, info, machine)
    btf = _read_btf(prog, info, symbols)
    _read_tables(prog, symbols, arch_from_elf(machine).unwind_tables)
    start, end = (_address(prog, symbols, name) for name in ("_stext", "_end"))
    if start is None or end is None:
        raise FormatError(info.source, "kallsyms lack _stext and _end")
    return DebugInfo(symbols, btf, start, end, _per_cpu_types(btf))


def _read_kallsyms(prog: Program, info: VmcoreInfo, machine: int) -> SymbolIndex:
    try:
        return load_vmlinux_kallsyms(_kallsyms_only(prog, info, machine))
    except BudgetExceededError:
        raise
    except Exception as error:  # drgn raises many kinds if tables are damaged.
        raise UnsupportedError(
            f"{info.source}: no kallsyms in the kernel's memory ({error}); "
            f"{_advice(info)}"
        ) from error


def _address(prog: Program, symbols: SymbolIndex, name: str) -> int | None:
    found: Sequence[Symbol] = symbols(prog, name, None, True)
    return found[0].address if found else None


def _read_btf(prog: Program, info: VmcoreInfo, symbols: SymbolIndex) -> Btf:
    source = info.source
    start, stop = (
        _address(prog, symbols, name) for name in ("__start_BTF", "__stop_BTF")
    )
    if start is None or stop is None:
        missing = "no types: there is no BTF (CONFIG_DEBUG_INFO_BTF is not set)"
        if _address(prog, symbols, "init_uts_ns") is None:
            missing = (
                "neither variables nor types: kallsyms has functions only "
                "(CONFIG_KALLSYMS_ALL is not set)"
            )
        raise UnsupportedError(
            f"{source}: the kernel's memory has {missing}; {_advice(info)}"
        )
    if not 0 < stop - start <= MAX_SIZE:
        raise FormatError(source, f"BTF of {stop - start} bytes at {start:#x}")
    try:
        data = prog.read(start, stop - start)
    except FaultError as error:
        raise UnsupportedError(f"{source}: cannot read BTF: {error}") from error
    return parse_btf(data, f"{source}: BTF at {start:#x}")


def _per_cpu_types(btf: Btf) -> dict[str, int]:
    per_cpu: dict[str, int] = {}
    for section in btf.listed[BtfKind.DATASEC]:
        for type_id, _ in btf.section_variables(btf.type(section)):
            var = btf.type(type_id)
            per_cpu.setdefault(var.name, var.size_or_type)
    return per_cpu


def _advice(info: VmcoreInfo) -> str:
    release = info.osrelease
    package = find_debug_package(release)
    return f"give the debug file of {release} with --vmlinux ({package})"


def _read_tables(prog: Program, symbols: SymbolIndex, names: Sequence[str]) -> None:
    # drgn reads these when it unwinds. They never change, so they are recorded here.
    for name in names:
        start = _address(prog, symbols, f"__start_{name}")
        stop = _address(prog, symbols, f"__stop_{name}")
        if start is not None and stop is not None and 0 < stop - start <= MAX_SIZE:
            with contextlib.suppress(FaultError):
                prog.read(start, stop - start)


def _kallsyms_only(prog: Program, info: VmcoreInfo, machine: int) -> Program:
    # drgn reads kallsyms a few bytes at a time, half a million times, which is slow
    # through a Python callback. Give drgn a copy of the tables.
    names = ("names", "num_syms", "token_table", "token_index", "offsets")
    tables = {name: info.symbol(f"kallsyms_{name}") for name in names}
    count = prog.read_u32(tables["num_syms"])
    if not 0 < count <= MAX_SYMBOLS:
        raise ValueError(f"{count} symbols")
    ends = [tables["token_index"] + 512, tables["offsets"] + 4 * count]
    with contextlib.suppress(NotCapturedError):
        # Removed in Linux kernel commit a081b5789255 ("kallsyms: Get rid of kallsyms
        # relative base") (in v7.0). drgn reads both kinds.
        tables["relative_base"] = info.symbol("kallsyms_relative_base")
        ends.append(tables["relative_base"] + 8)
    start = min(tables.values())
    end = max(ends)
    if tables["names"] >= end or end - start > _MAX_KALLSYMS:
        raise ValueError(f"tables from {start:#x} to {end:#x}")
    return core_program(
        machine, info, info.source, segments=[(start, prog.read(start, end - start))]
    )
