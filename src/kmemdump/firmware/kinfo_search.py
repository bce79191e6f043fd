# SPDX-License-Identifier: GPL-2.0-or-later
"""Find and read a ``debug_kinfo``, in a machine's memory or in a file of its own."""

from __future__ import annotations

import os
from itertools import islice

from kmemdump.errors import FormatError, NotCapturedError, TargetError
from kmemdump.formats.kinfo import KINFO_MAGIC, Kinfo, parse_kinfo
from kmemdump.memory.physical import PAGE_SIZE, Memory
from kmemdump.memory.ranges import Range, intersect
from kmemdump.memory.search import find_bytes

__all__ = ["check_kinfo", "find_kinfo", "read_kinfo", "read_kinfo_file"]

_MAGIC = KINFO_MAGIC.to_bytes(4, "little")
_MAX_FOUND = 1000
_BASES = ("kallsyms_addresses", "kallsyms_relative_base")


def find_kinfo(memory: Memory, source: str = "memory") -> int:
    """
    Find the kinfo in a machine's memory, at the start of a page.

    :return: Its physical address in bytes.
    :raises TargetError: If there is none with addresses in the memory.
    :raises FormatError: If there are several.
    """
    found = []
    for address in islice(find_bytes(memory, _MAGIC, PAGE_SIZE), _MAX_FOUND):
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
        where = ", ".join(f"{address:#x}" for address in found[:5])
        raise FormatError(source, f"{len(found)} kinfos, expected one: {where}")
    return found[0]


def read_kinfo(memory: Memory, address: int, source: str = "memory") -> Kinfo:
    """
    Read the kinfo at an address.

    :param address: Physical address in bytes.
    :raises FormatError: If it is not a kinfo.
    :raises NotCapturedError: If the memory does not hold it.
    """
    room = sum(it.size for it in intersect([Range(address, PAGE_SIZE)], memory.ranges))
    data = memory.read(address, max(room, 8))
    return parse_kinfo(data, f"{source}: kinfo at {address:#x}")


def read_kinfo_file(path: str) -> Kinfo | None:
    """
    Read a file that holds only a kinfo.

    :return: ``None`` if it is something else, or cannot be read.
    :raises FormatError: If it starts like a kinfo, but is broken.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            data = file.read(PAGE_SIZE)
    except (OSError, ValueError):
        return None
    return parse_kinfo(data, path) if data.startswith(_MAGIC) else None


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # A FIFO would wait for a writer.


def check_kinfo(kinfo: Kinfo) -> list[str]:
    """Return the problems of a kinfo that a user should know, one line each."""
    problems = []
    if not kinfo.checksum_ok:
        problems.append(
            "the kinfo's checksum is wrong: the kernel died while it changed it"
        )
    given = {name for name, address in kinfo.addresses.items() if address}
    # A kernel has one of these, or since v7.0 none: Linux kernel commit a081b5789255
    # ("kallsyms: Get rid of kallsyms relative base").
    has_base = given.intersection(_BASES) or (
        "kallsyms_offsets" in given and not kinfo.is_base_relative
    )
    empty = [
        name
        for name in kinfo.addresses
        if name not in given and not (name in _BASES and has_base)
    ]
    if empty:
        problems.append(f"the kinfo lacks {', '.join(empty)}")
    return problems
