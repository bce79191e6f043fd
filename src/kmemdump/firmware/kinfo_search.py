# SPDX-License-Identifier: GPL-2.0-or-later
"""Find a ``debug_kinfo`` in a machine's memory, and read it."""

from __future__ import annotations

from itertools import islice

from kmemdump.errors import FormatError, NotCapturedError, TargetError
from kmemdump.formats.kinfo import KINFO_MAGIC, Kinfo, parse_kinfo
from kmemdump.memory.physical import PAGE_SIZE, Memory, places_of
from kmemdump.memory.ranges import Range, intersect

__all__ = ["check_kinfo", "find_kinfo", "read_kinfo"]

_MAGIC = KINFO_MAGIC.to_bytes(4, "little")
_MAX_FOUND = 1000
_BASES = ("kallsyms_addresses", "kallsyms_relative_base")


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
