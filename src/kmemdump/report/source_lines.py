# SPDX-License-Identifier: GPL-2.0-or-later
"""Source lines of a stack trace that a kernel logged, by debug files."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

from drgn import (
    Architecture,
    MissingDebugInfoError,
    Module,
    Platform,
    PlatformFlags,
    Program,
    SourceLocation,
)

from kmemdump.errors import FormatError, KmemdumpError, TargetError
from kmemdump.formats.elf_sections import parse_object
from kmemdump.kernel.module_file import read_module
from kmemdump.memory.ranges import round_up
from kmemdump.report.records import Loss, TraceEntry
from kmemdump.report.report import Report

__all__ = ["add_source_lines", "line_of", "plain_program", "with_source_lines"]

_ALL_ADDRESSES = [(1 << 63, (1 << 64) - 1)]
_MODULES = 0xFFFF_FFFF_C000_0000
_MODULES_SIZE = 1 << 29
"""Where modules may be, and in how many bytes, as on x86_64; anywhere would do."""
_PAGE = 4096
_MAX_NAMES = 5


def with_source_lines(
    report: Report, vmlinux: Path | None, modules: Mapping[str, Sequence[Path]]
) -> Report:
    """Return the report of a log with source lines: :func:`add_source_lines`."""
    if vmlinux is None and not modules:
        return report
    trace, losses = add_source_lines(report.trace, vmlinux, modules)
    return replace(report, trace=trace, missing=(*report.missing, *losses))


def add_source_lines(
    trace: Sequence[TraceEntry],
    vmlinux: Path | None,
    modules: Mapping[str, Sequence[Path]] | None = None,
) -> tuple[tuple[TraceEntry, ...], list[Loss]]:
    """
    Return a trace with file and line of each function.

    A function whose size differs is of another build, and gets no line; so does one of
    several that have both name and size in common.

    :param vmlinux: Has the functions that are built in.
    :param modules: By the name of a module, files that may have its functions; the
        first in which all sizes are right is taken.
    :return: The trace, and what is missing.
    :raises TargetError: If *vmlinux* cannot be read, or has no debug info.
    """
    files: dict[str | None, _DebugFile] = {}
    losses: list[Loss] = []
    if vmlinux is not None:
        files[None] = _open_vmlinux(vmlinux)
    for name, paths in (modules or {}).items():
        entries = [entry for entry in trace if entry.module == name]
        try:
            files[name] = _choose(name, paths, entries)
        except KmemdumpError as error:
            losses.append(Loss(f"the source lines of module {name}", str(error)))
    found: list[TraceEntry] = []
    for number, entry in enumerate(trace):
        file = files.get(entry.module)
        line = file.line(entry, failed=number == 0) if file is not None else None
        found.append(replace(entry, source=line) if line is not None else entry)
    for file in files.values():
        different = [entry.function for entry in trace if file.differs(entry)]
        if different:
            names = ", ".join(dict.fromkeys(different[:_MAX_NAMES]))
            why = (
                f"in {file.path}, these have another size, as if it were of another "
                "build"
            )
            losses.append(Loss(f"the source lines of {names}", why))
    return tuple(found), losses


class _DebugFile:
    """
    A debug file, of the kernel or of a module.

    :param module: The name of the module; ``None`` if it is the kernel's.
    :param sections: Addresses of its sections, for a module.
    """

    def __init__(
        self,
        path: Path,
        prog: Program,
        module: str | None = None,
        sections: Sequence[range] = (),
    ) -> None:
        self.path = path
        self._prog = prog
        self._module = module
        self._symbols = _Symbols(prog, sections)

    def line(self, entry: TraceEntry, *, failed: bool) -> str | None:
        """
        Return file and line of an entry, if it has none yet.

        :param failed: Whether it is where the kernel failed. If not, it is where a call
            returns to, which may be the first address of the next line.
        """
        same = self._same(entry)
        if entry.offset is None or entry.source or len(same) != 1:
            return None
        try:
            places = self._prog.source_location(same[0] + entry.offset - (not failed))
        except LookupError:
            return None
        return line_of(places[len(places) - 1])  # Its own, not that of what is inlined.

    def differs(self, entry: TraceEntry) -> bool:
        """Return whether an entry is of another build."""
        return (
            entry.module == self._module
            and entry.offset is not None
            and not entry.source
            and bool(self._symbols.starts(entry.function))
            and not self._same(entry)
        )

    def _same(self, entry: TraceEntry) -> list[int]:
        symbols, size = self._symbols, entry.size
        return [
            start
            for start in symbols.starts(entry.function)
            if size is not None and symbols.fits(start, size)
        ]


class _Symbols:
    """
    The symbols of a file, with the sizes that the kernel prints.

    These reach to the next symbol, and so have what fills up the end of a function:
    get_symbol_pos() in kernel/kallsyms.c, find_kallsyms_symbol() in
    kernel/module/kallsyms.c.
    """

    def __init__(self, prog: Program, sections: Sequence[range] = ()) -> None:
        self._named: dict[str, set[int]] = {}
        self._code: dict[int, int] = {}
        for symbol in prog.symbols():
            # As is_mapping_symbol() in include/linux/module_symbol.h.
            if not symbol.name.startswith(("$", ".L", "L0")):
                start = symbol.address
                self._named.setdefault(symbol.name, set()).add(start)
                self._code[start] = max(symbol.size, self._code.get(start, 0))
        self._addresses = sorted(self._code)
        self._sections = sections

    def starts(self, name: str) -> Set[int]:
        """Return the addresses of the symbols with this name."""
        return self._named.get(name, frozenset())

    def fits(self, start: int, printed: int) -> bool:
        """Return whether the kernel may print this size for a symbol."""
        place = bisect_right(self._addresses, start)
        following = self._addresses[place : place + 1]
        for section in self._sections:
            if start in section and following and following[0] not in section:
                following = []
        if following:
            return printed == following[0] - start
        # What the kernel puts behind the last one of a section is not in the file.
        return printed >= self._code[start]


def _choose(
    name: str, paths: Iterable[Path], entries: Sequence[TraceEntry]
) -> _DebugFile:
    """
    Return the first file in which the functions of a module have the right sizes.

    :return: Without such a file, the first one that can be read.
    :raises KmemdumpError: If none can be read.
    """
    first: _DebugFile | None = None
    problem: KmemdumpError | None = None
    for path in paths:
        try:
            file = _open_module(path, name)
        except KmemdumpError as error:
            problem = problem or error
            continue
        if not any(map(file.differs, entries)):
            return file
        first = first or file
    if first is None:
        raise problem or TargetError(f"no file of module {name}")
    return first


def _open_vmlinux(path: Path) -> _DebugFile:
    prog = plain_program()
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise TargetError(f"{path}: {error}") from error
    if magic != b"\x7fELF":
        raise TargetError(f"{path}: is no ELF file, expected a vmlinux")
    _load(prog.extra_module("vmlinux", create=True), path, "a vmlinux")
    return _DebugFile(path, prog)


def _open_module(path: Path, name: str) -> _DebugFile:
    addresses: dict[str, range] = {}
    place = _MODULES
    data = io.BytesIO(read_module(path))

    def read(at: int, count: int) -> bytes:
        data.seek(at)
        return data.read(count)

    for section in parse_object(read, len(data.getbuffer()), str(path)):
        if section.is_loaded and section.name not in addresses:
            addresses[section.name] = range(place, place + section.size)
            # With room between them, so that none has the end of another.
            place = round_up(place + section.size + 1, _PAGE)
    if place > _MODULES + _MODULES_SIZE:
        size = place - _MODULES
        raise FormatError(str(path), f"sections of {size} bytes, expected a module")
    prog = plain_program()
    module = prog.relocatable_module(name, _MODULES, create=True)
    module.section_addresses.update(
        {section: addresses[section].start for section in addresses}
    )
    _load(module, path, "a module")
    return _DebugFile(path, prog, name, list(addresses.values()))


def line_of(place: SourceLocation) -> str | None:
    """Return file and line of a place, if they are known."""
    return f"{place.filename}:{place.line}" if place.filename else None


def plain_program() -> Program:
    """Return a program for debug files alone."""
    # Symbols and lines alone are read, for which any 64-bit platform does.
    flags = PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN
    return Program(Platform(Architecture.UNKNOWN, flags))


def _load(module: Module, path: Path, kind: str) -> None:
    try:
        module.address_ranges = _ALL_ADDRESSES
        module.try_file(path, force=True)
    except (OSError, MissingDebugInfoError) as error:
        raise TargetError(f"{path}: {error}") from error
    if module.debug_file_path is None:
        raise TargetError(f"{path}: has no debug info, expected {kind} with it")
