# SPDX-License-Identifier: GPL-2.0-or-later
"""Source lines of a stack trace that a kernel logged, by its debug file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path

from drgn import (
    Architecture,
    MissingDebugInfoError,
    Platform,
    PlatformFlags,
    Program,
)

from kmemdump.errors import TargetError
from kmemdump.report.records import Loss, TraceEntry

__all__ = ["add_source_lines"]

_ALL_ADDRESSES = [(1 << 63, (1 << 64) - 1)]


def add_source_lines(
    trace: Sequence[TraceEntry], vmlinux: Path
) -> tuple[tuple[TraceEntry, ...], list[Loss]]:
    """
    Return a trace with file and line of each function that is built in.

    A function whose size differs is of another build, and gets no line; so does one of
    several that have both name and size in common.

    :return: The trace, and what is missing.
    :raises TargetError: If *vmlinux* cannot be read, or has no debug info.
    """
    prog = _open(vmlinux)
    symbols = _Symbols(prog)
    found: list[TraceEntry] = []
    different: list[str] = []
    for number, entry in enumerate(trace):
        if entry.module or entry.offset is None or entry.source:
            found.append(entry)
            continue
        starts = symbols.starts(entry.function)
        same = [start for start in starts if symbols.size(start) == entry.size]
        if len(same) != 1:
            different += [entry.function] if starts and not same else []
            found.append(entry)
            continue
        # A return address may be the first one of the next line.
        address = same[0] + entry.offset - int(number > 0)
        found.append(replace(entry, source=_line(prog, address)))
    losses = []
    if different:
        names = ", ".join(different[:5])
        why = f"in {vmlinux}, these have another size, as if it were of another build"
        losses.append(Loss(f"the source lines of {names}", why))
    return tuple(found), losses


def _open(vmlinux: Path) -> Program:
    # Symbols and lines alone are read, for which any 64-bit platform does.
    flags = PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN
    prog = Program(Platform(Architecture.UNKNOWN, flags))
    try:
        with open(vmlinux, "rb") as file:
            magic = file.read(4)
        if magic != b"\x7fELF":
            raise TargetError(f"{vmlinux}: is no ELF file, expected a vmlinux")
        module = prog.extra_module("vmlinux", create=True)
        module.address_ranges = _ALL_ADDRESSES
        module.try_file(vmlinux, force=True)
    except (OSError, MissingDebugInfoError) as error:
        raise TargetError(f"{vmlinux}: {error}") from error
    if module.debug_file_path is None:
        raise TargetError(f"{vmlinux}: has no debug info, expected a vmlinux with it")
    return prog


class _Symbols:
    """
    The symbols of a file, with the sizes that the kernel prints.

    These reach to the next symbol, and so have what fills up the end of a function:
    get_symbol_pos() in kernel/kallsyms.c.
    """

    def __init__(self, prog: Program) -> None:
        self._named: dict[str, set[int]] = {}
        addresses = set()
        for symbol in prog.symbols():
            # As is_mapping_symbol() in include/linux/module_symbol.h.
            if not symbol.name.startswith(("$", ".L", "L0")):
                self._named.setdefault(symbol.name, set()).add(symbol.address)
                addresses.add(symbol.address)
        self._addresses = sorted(addresses)

    def starts(self, name: str) -> Set[int]:
        """Return the addresses of the symbols with this name."""
        return self._named.get(name, frozenset())

    def size(self, start: int) -> int | None:
        """Return the bytes from a symbol to the next; ``None`` if it is the last."""
        place = bisect_right(self._addresses, start)
        return self._addresses[place] - start if place < len(self._addresses) else None


def _line(prog: Program, address: int) -> str | None:
    try:
        places = prog.source_location(address)
    except LookupError:
        return None
    place = places[len(places) - 1]  # Of the function itself, not of what is inlined.
    return f"{place.filename}:{place.line}" if place.filename else None
