# SPDX-License-Identifier: GPL-2.0-or-later
"""
Symbols and types of a kernel: from kallsyms and BTF in its memory, or from the note of
a core image.

Neither changes while the kernel runs, so they are read once and shared by every
:class:`drgn.Program` on the same kernel.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from drgn import FaultError, Program, Symbol, SymbolBinding, SymbolKind

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.coreimage.read import CoreImage
from kmemdump.errors import (
    BudgetExceededError,
    FormatError,
    NotCapturedError,
    UnsupportedError,
)
from kmemdump.formats.btf import MAX_SIZE, Btf, BtfKind, pack_btf, parse_btf
from kmemdump.formats.debug_info import DebugInfoNote, split_place
from kmemdump.formats.notes import OWNER
from kmemdump.formats.symbols import (
    SymbolRow,
    SymbolTable,
)
from kmemdump.kernel.build_cache import Build, BuildCache, digest_of
from kmemdump.kernel.debug_packages import find_debug_package
from kmemdump.kernel.kallsyms import read_kallsyms_tables
from kmemdump.kernel.partial_symbols import (
    add_per_cpu_variables,
    find_variables,
    lacks_unwind_tables,
)
from kmemdump.kernel.symbol_names import find_changed_names, plain_name
from kmemdump.memory.physical import PAGE_SIZE, Memory
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = [
    "DebugInfo",
    "debug_info_of_core",
    "debug_info_of_note",
    "note_of_debug_info",
    "per_cpu_types",
    "plain_symbol",
    "read_debug_info",
    "read_unwind_tables",
]

_ADDRESS = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class DebugInfo:
    """Symbols and types of one kernel."""

    symbols: SymbolTable
    btf: Btf
    start: int
    """Start of the kernel image; addresses below it are per-CPU offsets."""
    end: int
    """End of the kernel image."""
    per_cpu: Mapping[str, int] = field(default_factory=dict)
    """BTF type ids of per-CPU variables, by name."""
    variables: Mapping[str, int] = field(default_factory=dict)
    """BTF type ids of other variables, by name, where they are known."""
    lacks: str = ""
    """What is missing, in one line; empty if nothing is."""
    _changed: dict[str, list[SymbolRow]] = field(default_factory=dict, repr=False)
    """Plain names that were looked up to what the compiler made of them."""

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
        if name is not None:
            rows = self._named(name, one and address is None)
            if address is not None:
                rows = [it for it in rows if 0 <= address - it.address < it.size]
            return [_symbol(row, name) for row in (rows[:1] if one else rows)]
        if address is not None:
            rows = self.symbols.containing(address)
            if self.lacks:  # Between variables that are known, there are others.
                rows = [
                    row
                    for row in rows
                    if row.address == address or self._is_text(address)
                ]
        else:
            rows = [self.symbols.row(index) for index in range(len(self.symbols))]
        if one and len(rows) > 1:
            rows = [min(rows, key=_rank)]
        return [_symbol(row, plain_name(row.name)) for row in rows]

    def _is_text(self, address: int) -> bool:
        for section in ("text", "inittext"):
            first, last = (_address(self.symbols, f"_{it}{section}") for it in "se")
            if first is not None and last is not None and first <= address < last:
                return True
        return False

    def _named(self, name: str, one: bool) -> list[SymbolRow]:
        rows = self.symbols.find(name, one=one)
        if rows:
            return rows
        if name not in self._changed:
            self._changed[name] = find_changed_names(name, self.symbols)
        return self._changed[name]


_BINDINGS = {number - 1 & 15: SymbolBinding(number) for number in range(4)}
_UNKNOWN = 15
"""Symbol binding, of ``st_info``, that no ELF file has."""


def _symbol(row: SymbolRow, name: str) -> Symbol:
    kind = row.info & 15
    return Symbol(
        name,
        row.address,
        row.size,
        _BINDINGS.get(row.info >> 4, SymbolBinding.UNKNOWN),
        SymbolKind(kind) if kind <= SymbolKind.FUNC.value else SymbolKind.UNKNOWN,
    )


def plain_symbol(symbol: Symbol) -> Symbol:
    """Return a symbol with its plain name."""
    name = plain_name(symbol.name)
    if name == symbol.name:
        return symbol
    return Symbol(name, symbol.address, symbol.size, symbol.binding, symbol.kind)


# may_be_linker_script_provide_symbol(), Linux scripts/kallsyms.c.
_PROVIDED = re.compile(r"__(?:start|stop|end)_.*|__.*_(?:start|end)")


def _rank(symbol: SymbolRow) -> tuple[bool, int]:
    # If symbols share an address, the kernel prints the one that sorts first.
    name = symbol.name
    provided = len(name) >= 8 and _PROVIDED.fullmatch(name) is not None
    return provided, len(name) - len(name.lstrip("_"))


def debug_info_of_core(core: CoreImage, builds: BuildCache | None = None) -> DebugInfo:
    """
    Return the debug info that a core image has.

    :param builds: Keeps what is made of it, for the next time.
    :raises FormatError: If it is damaged.
    """
    key, place = "", 0
    if builds is not None:
        place, same = split_place(core.debug_info_note(), f"{core.name}: note {OWNER}")
        key = digest_of(*same)
        known = builds.find(key, place)
        if known is not None:
            core.debug_info_is_whole = True
            return _of_build(known)
    found = debug_info_of_note(core.debug_info(), core.name)
    found.symbols.sort()  # A question looks up some fifty names.
    return found if builds is None else _keep(builds, key, place, found)


def debug_info_of_note(note: DebugInfoNote, source: str) -> DebugInfo:
    """
    Return the debug info that a core image has in a note.

    :param source: Name of the core image, for messages.
    :raises FormatError: If its BTF is damaged.
    """
    btf = parse_btf(note.btf, f"{source}: BTF")
    if note.more_btf:
        btf = parse_btf(note.more_btf, f"{source}: more BTF", btf)
    per_cpu = per_cpu_types(btf.base or btf)
    return DebugInfo(
        note.symbols,
        btf,
        note.start,
        note.end,
        per_cpu,
        dict(note.variables),
        note.lacks,
    )


def note_of_debug_info(info: DebugInfo) -> DebugInfoNote:
    """Return debug info in the form in which a core image has it."""
    base = info.btf.base
    return DebugInfoNote(
        info.symbols,
        pack_btf(base or info.btf),
        info.start,
        info.end,
        pack_btf(info.btf) if base and info.btf.types else b"",
        info.variables,
        info.lacks,
    )


def read_debug_info(
    prog: Program,
    info: VmcoreInfo,
    machine: int,
    memory: Memory | None = None,
    builds: BuildCache | None = None,
) -> DebugInfo:
    """
    Read kallsyms and BTF from a kernel's memory.

    :param prog: A program for the kernel that has no symbols yet.
    :param memory: The kernel's physical memory, which is searched for variables if
        kallsyms have functions only.
    :param builds: Has, or gets, what kernels of one build share.
    :raises UnsupportedError: If the kernel lacks one of the two.
    :raises FormatError: If one of them is damaged.
    """
    try:
        tables = read_kallsyms_tables(prog, info)
    except BudgetExceededError:
        raise
    except (LookupError, ValueError, FaultError, NotCapturedError) as error:
        raise _no_kallsyms(info, error) from error
    key = tables.key(machine)
    known = builds.find(key, tables.start) if builds is not None else None
    if known is not None:
        data = _read_btf(prog, info, known.symbols)
        if digest_of(data) == known.btf_digest:
            return _of_build(known)
    try:
        symbols = tables.symbols()
    except FormatError as error:
        raise _no_kallsyms(info, error) from error
    lacks = ""
    if _address(symbols, "init_uts_ns") is None and memory is not None:
        count = len(symbols)
        symbols = find_variables(prog, info, memory, symbols)
        lacks = (
            "kallsyms has functions only (CONFIG_KALLSYMS_ALL is not set): "
            f"of the variables, {len(symbols) - count} are known, which it exports to "
            f"modules or which have a known form; for all, {_advice(info)}"
        )
    data = _read_btf(prog, info, symbols)
    place = _address(symbols, "__start_BTF") or 0
    btf = parse_btf(data, f"{info.source}: BTF at {place:#x}")
    if lacks:
        symbols = add_per_cpu_variables(symbols, btf)
        if lacks_unwind_tables(symbols, btf):
            lacks += "; its unwind tables are not found: stack traces are guessed"
    start, end = (_address(symbols, name) for name in ("_stext", "_end"))
    if end is None and lacks:
        end = symbols.addresses[-1] + PAGE_SIZE
    if start is None or end is None:
        raise FormatError(info.source, "kallsyms lack _stext and _end")
    found = DebugInfo(symbols, btf, start, end, per_cpu_types(btf), lacks=lacks)
    if builds is None:
        return found
    symbols.sort()  # VMs share the order; each would search a copy without it.
    return _keep(builds, key, tables.start, found, digest_of(data))


def _keep(
    builds: BuildCache, key: str, place: int, found: DebugInfo, btf_digest: str = ""
) -> DebugInfo:
    """Keep debug info for others, if it is of what :class:`Build` has."""
    # What it lacks was looked for in other memory, too.
    if found.lacks or found.variables or found.btf.base:
        return found
    build = Build(
        found.symbols, found.btf, found.start, found.end, found.per_cpu, btf_digest
    )
    return _of_build(builds.add(key, place, build))


def _of_build(build: Build) -> DebugInfo:
    return DebugInfo(build.symbols, build.btf, build.start, build.end, build.per_cpu)


def _no_kallsyms(info: VmcoreInfo, error: Exception) -> UnsupportedError:
    return UnsupportedError(
        f"{info.source}: no kallsyms in the kernel's memory ({error}); {_advice(info)}"
    )


def _address(symbols: SymbolTable, name: str) -> int | None:
    found = symbols.find(name, one=True)
    return found[0].address if found else None


def _read_btf(prog: Program, info: VmcoreInfo, symbols: SymbolTable) -> bytes:
    source = info.source
    start, stop = (_address(symbols, name) for name in ("__start_BTF", "__stop_BTF"))
    if start is None or stop is None:
        missing = "no types: there is no BTF (CONFIG_DEBUG_INFO_BTF is not set)"
        if _address(symbols, "init_uts_ns") is None:
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
        data: bytes = prog.read(start, stop - start)
    except FaultError as error:
        raise UnsupportedError(f"{source}: cannot read BTF: {error}") from error
    return data


def per_cpu_types(btf: Btf) -> dict[str, int]:
    """Return the BTF type ids of per-CPU variables, by name."""
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


def read_unwind_tables(prog: Program, info: DebugInfo, machine: int) -> None:
    """Read the tables that drgn's unwinder reads, so that they are recorded."""
    for name in arch_from_elf(machine).unwind_tables:
        start = _address(info.symbols, f"__start_{name}")
        stop = _address(info.symbols, f"__stop_{name}")
        if start is not None and stop is not None and 0 < stop - start <= MAX_SIZE:
            with contextlib.suppress(FaultError):
                prog.read(start, stop - start)
