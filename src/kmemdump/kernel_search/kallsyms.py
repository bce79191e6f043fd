# SPDX-License-Identifier: GPL-2.0-or-later
"""Find kallsyms in a kernel's image, or prove that VMCOREINFO leads to it."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from kmemdump.arch.architecture import arch_from_info
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.formats.kallsyms import (
    MAX_SYMBOLS,
    Kallsyms,
    SymbolAddresses,
    parse_tokens,
)
from kmemdump.formats.kallsyms_search import (
    TOKEN_DIGITS,
    find_kallsyms,
    find_name,
    tokens_at,
)
from kmemdump.memory.physical import PAGE_SIZE, Memory
from kmemdump.memory.ranges import ADDRESS_SPACE, Range, intersect, round_up
from kmemdump.memory.search import find_bytes
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["FoundKallsyms", "PartOfMemory", "is_proven", "search_kallsyms"]

_NEAR = 32 << 10
"""Bytes around the digits that hold all tokens."""
_AROUND = ((8 << 20, 4 << 20), (48 << 20, 24 << 20))
"""
Bytes before and behind the tokens that are searched for the other tables. Debian's
kernels have 5 MiB of them.
"""
_CHUNK = 1 << 20
_ALIGNMENT = 8  # Of all tables.
_MAX_PLACES = 1000
_MAX_TABLES = 16  # An image may have copies.
_MAX_TOKENS = 16 << 10
_NAMES_READ = 256 << 10
"""
Bytes of names in which _stext is looked for. Some thousand per-CPU symbols, with
absolute addresses, may be before it.
"""
_COMPARED = 256
"""Symbols behind _stext whose addresses are compared."""
_TABLES = ("names", "num_syms", "token_table", "token_index", "offsets")


class PartOfMemory:
    """
    A part of a memory, which stays the caller's.

    :param part: Addresses outside of it are not held.
    """

    def __init__(self, memory: Memory, part: Range) -> None:
        self._memory = memory
        self.ranges: Sequence[Range] = intersect(memory.ranges, [part])

    def read(self, address: int, size: int) -> bytes:
        return self._memory.read(address, size)

    def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class FoundKallsyms:
    """Kallsyms that were found in a memory."""

    tables: Kallsyms
    start: int
    """Address in the memory at which the data of :attr:`tables` starts."""

    def symbols(
        self, addresses: SymbolAddresses, wanted: Collection[str], shift: int
    ) -> dict[str, set[int]]:
        """
        Return the virtual addresses of symbols.

        :param shift: Virtual address minus address in the memory, of the image.
        """
        place = self.start + shift if addresses.base is None else 0
        return {
            name: {(addresses.values[i] + place) % ADDRESS_SPACE for i in numbers}
            for name, numbers in self.tables.find(wanted).items()
        }

    def places(self, addresses: SymbolAddresses, shift: int) -> dict[str, int]:
        """Return the virtual addresses of the tables, by their symbols."""
        tables = self.tables
        offsets = {
            "kallsyms_names": tables.names,
            "kallsyms_num_syms": tables.num_syms,
            "kallsyms_token_table": tables.tokens.table,
            "kallsyms_token_index": tables.tokens.index,
            "kallsyms_offsets": addresses.offsets,
        }
        if addresses.base is not None:
            offsets["kallsyms_relative_base"] = addresses.base
        place = self.start + shift
        return {name: (at + place) % ADDRESS_SPACE for name, at in offsets.items()}


def search_kallsyms(memory: Memory, source: str) -> Iterator[FoundKallsyms]:
    """
    Yield each kallsyms in a memory; a copy of an image has one, too.

    :param source: Name of the memory, for messages.
    """
    places = find_bytes(memory, TOKEN_DIGITS, 1, activity="looking for symbols")
    tried = 0
    for address in islice(places, _MAX_PLACES):
        start, data = _read_around(memory, address, _NEAR, _NEAR)
        if tokens_at(data, address - start) is None:
            continue
        tried += 1
        if tried > _MAX_TABLES:
            break
        for before, behind in _AROUND:
            start, data = _read_around(memory, address, before, behind)
            tokens = tokens_at(data, address - start)
            assert tokens is not None
            try:
                found = FoundKallsyms(find_kallsyms(data, tokens, source), start)
            except FormatError:
                continue
            yield found
            break


def is_proven(info: VmcoreInfo, memory: Memory) -> bool:
    """
    Return whether the lines of *info* about kallsyms are right.

    They are if the tokens agree with their index, and ``_stext`` has the address that
    *info* says.

    :raises NotCapturedError: If a line is missing, or the memory does not hold what
        the lines lead to.
    """
    arch = arch_from_info(info)
    at = {name: info.symbol(f"kallsyms_{name}") for name in _TABLES}

    def read(name: str, size: int, offset: int = 0) -> bytes:
        address = arch.image_address(info, (at[name] + offset) % ADDRESS_SPACE)
        return memory.read(address, size)

    def read_up_to(name: str, size: int) -> bytes:
        return _read_up_to(memory, arch.image_address(info, at[name]), size)

    # The names follow their number, aligned (Linux scripts/kallsyms.c).
    if not 4 <= at["names"] - at["num_syms"] <= 8:
        return False
    count = int.from_bytes(read("num_syms", 4), "little")
    if not 0 < count <= MAX_SYMBOLS:
        return False
    index, table = read("token_index", 512), read_up_to("token_table", _MAX_TOKENS)
    try:
        tokens = parse_tokens(index, table, info.source)
    except FormatError:
        return False
    names = read_up_to("names", _NAMES_READ)
    for long_names in (True, False):
        number = find_name(names, tokens, b"_stext", long_names)
        if number is not None and number < count:
            raw = read("offsets", 4 * min(number + _COMPARED, count))
            offsets = struct.unpack(f"<{len(raw) // 4}I", raw)
            if _agree(info, memory, offsets, number, at["offsets"]):
                return True
    return False


def _agree(
    info: VmcoreInfo, memory: Memory, offsets: Sequence[int], number: int, place: int
) -> bool:
    """
    Return whether _stext has its address, and addresses ascend, in any of the layouts.

    :param number: Of _stext.
    :param place: Virtual address of the offsets.
    """
    signed = [it - (it >> 31 << 32) for it in offsets]
    layouts = [[place + 4 * i + it for i, it in enumerate(signed)]]
    with contextlib.suppress(NotCapturedError):
        base = info.symbol("kallsyms_relative_base")
        address = arch_from_info(info).image_address(info, base)
        start = int.from_bytes(memory.read(address, 8), "little")
        layouts.append([start + it for it in offsets])
        layouts.append([it if it >= 0 else start - 1 - it for it in signed])
    expected = info.symbol("_stext")
    return any(
        values[number] == expected
        and values[0] < values[-1]
        and all(a <= b for a, b in pairwise(values))
        for values in layouts
    )


def _read_around(
    memory: Memory, address: int, before: int, behind: int
) -> tuple[int, bytes]:
    """Read what is around an address without a gap; return where it starts, too."""
    pieces: list[bytes] = []
    middle = at = address // PAGE_SIZE * PAGE_SIZE
    while at > max(middle - before, 0):
        size = min(_CHUNK, at)
        part = _read_down_to(memory, at, size)
        pieces.append(part)
        at -= len(part)
        if len(part) < size:
            break
    first = at
    pieces.reverse()
    at = middle
    while at < address + behind:
        part = _read_up_to(memory, at, _CHUNK)
        pieces.append(part)
        at += len(part)
        if len(part) < _CHUNK:
            break
    start = round_up(first, _ALIGNMENT)
    return start, b"".join(pieces)[start - first :]


def _read_up_to(memory: Memory, address: int, size: int) -> bytes:
    """Read *size* bytes, or less if the memory does not hold all of them."""
    with contextlib.suppress(NotCapturedError):
        return memory.read(address, size)
    pieces = []
    end = address + size
    while address < end:
        count = min(PAGE_SIZE - address % PAGE_SIZE, end - address)
        held = next((r for r in memory.ranges if r.start <= address < r.end), None)
        if held is None:
            break
        count = min(count, held.end - address)
        try:
            pieces.append(memory.read(address, count))
        except NotCapturedError:
            break
        address += count
    return b"".join(pieces)


def _read_down_to(memory: Memory, end: int, size: int) -> bytes:
    """Read the last of *size* bytes before *end* that the memory holds."""
    with contextlib.suppress(NotCapturedError):
        return memory.read(end - size, size)
    pieces: list[bytes] = []
    at, first = end, end - size
    while at > first:
        start = max((at - 1) // PAGE_SIZE * PAGE_SIZE, first)
        held = next((r for r in memory.ranges if r.start < at <= r.end), None)
        if held is None:
            break
        start = max(start, held.start)
        try:
            pieces.append(memory.read(start, at - start))
        except NotCapturedError:
            break
        at = start
    return b"".join(reversed(pieces))
