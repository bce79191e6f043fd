# SPDX-License-Identifier: GPL-2.0-or-later
"""
A kernel found by its ``debug_kinfo``, in a machine's memory.

A kinfo holds addresses and no memory: those of the kernel's image, of the symbol table
inside it, and of the page table. So what can be collected is the image, with all static
variables; what was allocated needs the page tables and is a matter for ``capture``.
"""

from __future__ import annotations

from kmemdump.errors import TargetError
from kmemdump.firmware.kinfo_search import check_kinfo, read_kinfo
from kmemdump.firmware_dumps.assemble import Collected, assemble
from kmemdump.firmware_dumps.fragments import MemoryStore, Piece
from kmemdump.formats.kinfo import Kinfo
from kmemdump.memory.physical import PAGE_SIZE, Memory
from kmemdump.memory.ranges import Range, intersect, subtract

__all__ = ["collect_kinfo"]

_MAX_IMAGE = 512 << 20
"""A kernel with everything in it has less than 100 MiB."""
_STARTS = ("_text", "_stext", "_sinittext")


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
