# SPDX-License-Identifier: GPL-2.0-or-later
"""
A kernel found by its ``debug_kinfo``, in a machine's memory.

A kinfo holds addresses and no memory: those of the kernel's image, of the symbol table
inside it, and of the page table. So what can be collected is the image, with all static
variables; what was allocated needs the page tables and is a matter for ``capture``.
"""

from __future__ import annotations

from itertools import islice

from kmemdump.collect.assemble import Collected, assemble
from kmemdump.collect.pieces import MemoryStore, Piece
from kmemdump.errors import FormatError, NotCapturedError, TargetError
from kmemdump.formats.kinfo import KINFO_MAGIC, Kinfo, parse_kinfo
from kmemdump.memory import PAGE_SIZE, Memory, places_of
from kmemdump.region import Range, intersect, subtract

__all__ = ["check_kinfo", "collect_kinfo", "find_kinfo", "read_kinfo"]

_MAGIC = KINFO_MAGIC.to_bytes(4, "little")
_MAX_FOUND = 1000
_MAX_IMAGE = 512 << 20
"""A kernel with everything in it has less than 100 MiB."""
_BASES = ("kallsyms_addresses", "kallsyms_relative_base")
_STARTS = ("_text", "_stext", "_sinittext")


def find_kinfo(memory: Memory, source: str = "memory") -> int:
    """
    Find the kinfo in a machine's memory: at the start of a page, as all are.

    :return: Its physical address in bytes.
    :raises TargetError: If there is none whose addresses lie in the memory.
    :raises FormatError: If there are several.
    """
    found = []
    for address in islice(places_of(memory, _MAGIC, PAGE_SIZE), _MAX_FOUND):
        try:
            kinfo = read_kinfo(memory, address, source)
        except (FormatError, NotCapturedError):
            continue
        text = kinfo.addresses.get("_stext", 0)
        if text and intersect([Range(text, 1)], memory.ranges):
            found.append(address)
    if not found:
        raise TargetError(f"{source}: no debug_kinfo found")
    if len(found) > 1:
        places = ", ".join(f"{address:#x}" for address in found[:5])
        raise FormatError(source, f"{len(found)} kinfos, expected one: {places}")
    return found[0]


def read_kinfo(memory: Memory, address: int, source: str = "memory") -> Kinfo:
    """
    Read a kinfo.

    :param address: Physical address in bytes.
    :raises FormatError: If there is none.
    :raises NotCapturedError: If that is not in the memory.
    """
    room = sum(it.size for it in intersect([Range(address, PAGE_SIZE)], memory.ranges))
    data = memory.read(address, max(room, 8))
    return parse_kinfo(data, f"{source}: kinfo at {address:#x}")


def check_kinfo(kinfo: Kinfo) -> list[str]:
    """Return what a reader of a kinfo should be told."""
    problems = []
    if not kinfo.checksum_ok:
        problems.append(
            "the kinfo's checksum is wrong: the kernel died while it changed something"
        )
    given = {name for name, address in kinfo.addresses.items() if address}
    empty = [
        name
        for name in kinfo.addresses
        # A kernel has only one of the two tables.
        if name not in given and not (name in _BASES and given.intersection(_BASES))
    ]
    if empty:
        problems.append(f"the kinfo does not tell {', '.join(empty)}")
    return problems


def collect_kinfo(memory: Memory, address: int, source: str = "memory") -> Collected:
    """
    Collect the kernel's image, as a kinfo tells where it is.

    :param memory: Stays the caller's, and open as long as the result is used.
    :raises TargetError: If the kinfo does not tell, or that is not in the memory.
    """
    kinfo = read_kinfo(memory, address, source)
    get = kinfo.addresses.get
    start = min((at for name in _STARTS if (at := get(name, 0))), default=0)
    end = get("_end", 0)
    if not 0 < end - start <= _MAX_IMAGE or not start:
        raise TargetError(
            f"{source}: kinfo at {address:#x} has an image from {start:#x} to "
            f"{end:#x}, expected one of at most {_MAX_IMAGE >> 20} MiB"
        )
    image = Range(start, end - start)
    wanted = [("image", item) for item in _without_table(image, kinfo)]
    wanted.append(("kinfo", Range(address, PAGE_SIZE)))
    pieces = []
    for name, item in wanted:
        for part in intersect([item], memory.ranges):
            store = MemoryStore(memory, part.start, part.size)
            size = item.size if part.start == item.start else part.size
            pieces.append(Piece(name, store, part.start, size))
    if not any(piece.name == "image" for piece in pieces):
        raise TargetError(f"{source}: the image at {image} is not in the memory")
    collected = assemble(source, pieces, problems=check_kinfo(kinfo), described=False)
    return collected._replace(backend="kinfo")


def _without_table(image: Range, kinfo: Kinfo) -> list[Range]:
    """Leave out the page table: what it points to is not there, but is looked for."""
    table = kinfo.addresses.get("swapper_pg_dir", 0)
    return subtract([image], [Range(table, PAGE_SIZE)])
