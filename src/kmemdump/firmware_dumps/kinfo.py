# SPDX-License-Identifier: GPL-2.0-or-later
"""
A kernel found by its ``debug_kinfo``, in a machine's memory.

A kinfo holds only addresses: of the kernel's image, of the symbol table inside it, and
of the page table. So the image can be collected, with all static variables; allocated
memory needs the page tables, and ``capture``.
"""

from __future__ import annotations

from kmemdump.errors import TargetError
from kmemdump.firmware.kinfo_search import check_kinfo, read_kinfo
from kmemdump.firmware_dumps.assemble import FirmwareDump, assemble
from kmemdump.firmware_dumps.fragments import held_fragments
from kmemdump.memory.physical import PAGE_SIZE, Memory
from kmemdump.memory.ranges import Range, subtract

__all__ = ["collect_kinfo"]

_MAX_IMAGE = 512 << 20
"""The largest kernels have less than 100 MiB."""
_STARTS = ("_text", "_stext", "_sinittext")


def collect_kinfo(memory: Memory, address: int, source: str = "memory") -> FirmwareDump:
    """
    Collect the kernel's image, whose address is in a kinfo.

    :param memory: Stays the caller's, and open as long as the result is used.
    :raises TargetError: If the kinfo has no image, or the memory does not hold it.
    """
    kinfo = read_kinfo(memory, address, source)
    get = kinfo.addresses.get
    start = min((at for name in _STARTS if (at := get(name, 0))), default=0)
    end = get("_end", 0)
    if not 0 < end - start <= _MAX_IMAGE or not start:
        raise TargetError(
            f"{source}: kinfo at {address:#x} has an image from {start:#x} to "
            f"{end:#x}, expected at most {_MAX_IMAGE >> 20} MiB"
        )
    image = Range(start, end - start)
    # Without the page table: debuggers would follow it out of the dump.
    table = Range(get("swapper_pg_dir", 0), PAGE_SIZE)
    fragments = []
    for item in subtract([image], [table]):
        fragments += held_fragments(memory, "image", item)
    if not fragments:
        raise TargetError(f"{source}: the image at {image} is not in the memory")
    fragments += held_fragments(memory, "kinfo", Range(address, PAGE_SIZE))
    dump = assemble(source, fragments, problems=check_kinfo(kinfo), described=False)
    return dump._replace(backend="kinfo")
