# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of kallsyms in a kernel's memory, at the addresses of VMCOREINFO."""

from __future__ import annotations

import contextlib
import struct
from array import array
from collections.abc import Mapping
from dataclasses import dataclass

from drgn import Program

from kmemdump.errors import NotCapturedError
from kmemdump.formats.kallsyms import (
    INDEX_SIZE,
    MAX_SYMBOLS,
    Kallsyms,
    kallsyms_at,
    size_of_sequences,
)
from kmemdump.formats.symbols import SymbolTable
from kmemdump.kernel.build_cache import digest_of
from kmemdump.memory.ranges import ADDRESS_SPACE, round_up
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["KallsymsTables", "read_kallsyms_tables"]

_MAX_SIZE = 128 << 20
_ADDRESS = struct.Struct("<Q")
_NAMES = ("names", "num_syms", "token_table", "token_index", "offsets")
_BASE = "relative_base"
"""
Removed in Linux kernel commit a081b5789255 ("kallsyms: Get rid of kallsyms relative
base") (in v7.0).
"""


@dataclass(frozen=True, slots=True)
class KallsymsTables:
    """The tables, which lie together."""

    start: int
    """Virtual address of the data."""
    data: bytes
    places: Mapping[str, int]
    """Where in the data each table begins, by its name without ``kallsyms_``."""
    ends: tuple[int, ...]
    """Where in the data those end that may be the last."""
    source: str

    def key(self, machine: int) -> str:
        """Return what is the same for one build wherever it lies, and for no other."""
        data, distance = self.data, 0
        base = self.places.get(_BASE)
        if base is not None:
            (address,) = _ADDRESS.unpack_from(data, base)
            distance = address - self.start & ADDRESS_SPACE - 1
            data = data[:base] + data[base + 8 :]
        numbers = [machine, distance, *self.places.values()]
        return digest_of(data, array("Q", numbers))

    def parse(self) -> Kallsyms:
        """
        Return all but the addresses.

        :raises FormatError: If the tables do not agree with each other.
        """
        at = self.places
        return kallsyms_at(
            self.data,
            at["names"],
            at["num_syms"],
            at["token_table"],
            at["token_index"],
            self.source,
        )

    def symbols(self) -> SymbolTable:
        """
        Return all symbols.

        :raises FormatError: If the tables do not agree with each other.
        """
        at = self.places
        return self.parse().symbols(at["offsets"], at.get(_BASE), self.start)


def read_kallsyms_tables(
    prog: Program, info: VmcoreInfo, *, sequences: bool = False
) -> KallsymsTables:
    """
    Read the tables.

    :param sequences: Whether to read the table that orders the names, too, which may
        follow all others.
    :raises NotCapturedError: If an address is not known, or cannot be right.
    :raises drgn.FaultError: If memory is missing.
    """
    at = {name: info.symbol(f"kallsyms_{name}") for name in _NAMES}
    count = prog.read_u32(at["num_syms"])
    if not 0 < count <= MAX_SYMBOLS:
        raise NotCapturedError(f"{count} symbols in kallsyms")
    ends = [at["token_index"] + INDEX_SIZE, at["offsets"] + 4 * count]
    with contextlib.suppress(NotCapturedError):
        at[_BASE] = info.symbol(f"kallsyms_{_BASE}")
        ends.append(at[_BASE] + 8)
    start, end = min(at.values()), max(ends)
    if at["names"] >= end or end - start > _MAX_SIZE:
        raise NotCapturedError(f"kallsyms from {start:#x} to {end:#x}")
    if sequences:
        end = round_up(end, 8) + size_of_sequences(count)
    return KallsymsTables(
        start,
        prog.read(start, end - start),
        {name: address - start for name, address in at.items()},
        tuple(item - start for item in ends),
        info.source,
    )
