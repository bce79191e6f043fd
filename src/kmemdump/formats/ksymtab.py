# SPDX-License-Identifier: GPL-2.0-or-later
"""
The table of symbols that a kernel exports to modules, found by its contents.

A kernel without CONFIG_KALLSYMS_ALL has the addresses of its variables only here, and
the bounds of the table are not among its symbols. Each entry has three signed words,
each an offset from its own place: to the symbol, to its name, to its namespace (struct
kernel_symbol in include/linux/export-internal.h; since Linux kernel commits
7290d5809571 ("module: use relative references for __ksymtab entries") (in v4.19) and
8651ec01daed ("module: add support for symbol namespaces.") (in v5.4)). There are
functions among the symbols, whose addresses kallsyms has: they are the proof.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from collections.abc import Collection, Iterator, Mapping
from itertools import islice, pairwise

from kmemdump.memory.ranges import Range

__all__ = ["find_exports"]

_ENTRY = struct.Struct("<iii")
_NAME = re.compile(rb"([A-Za-z_][A-Za-z0-9_.$]{0,510})\0")
_ANCHORS = (
    "register_chrdev_region",
    "wait_for_completion_interruptible",
    "kfree",
    "_printk",
    "printk",
)
"""Exported functions, one of which a kernel has; long names are in fewer places."""
_MAX_PLACES = 64
"""Most places of an anchor's name to look at; other names may end with it."""
_MAX_ANCHORS = 128
"""Most places for all anchors; hostile memory has many addresses for each name."""
_MAX_TABLES = 8
"""Most tables to read; hostile memory has an entry in each place."""
_REACH = 1 << 20
"""Bytes around a name in which its entry is looked for: they are in one section."""
_MAX_ENTRIES = 1 << 17
_MIN_PROVEN = 50
"""Functions that must be where kallsyms says; a kernel exports thousands."""


def find_exports(
    data: bytes, address: int, known: Mapping[str, Collection[int]]
) -> tuple[dict[str, int], Range] | None:
    """
    Find the symbols that a kernel exports.

    :param data: The kernel's image.
    :param address: Virtual address of the image.
    :param known: Functions, and the addresses that each name has.
    :return: Names and addresses, and the part of *data* that the table and the names
        are in; ``None`` if there is no table that *known* proves.
    """
    entries = (
        entry
        for at, value in islice(_anchors(data, known), _MAX_ANCHORS)
        for entry in _entries_of(data, at, value - address)
    )
    for entry in islice(entries, _MAX_TABLES):
        found = _read_table(data, address, entry)
        if found is not None and _is_proven(found[0], known):
            return found
    return None


def _anchors(
    data: bytes, known: Mapping[str, Collection[int]]
) -> Iterator[tuple[int, int]]:
    """Yield where an anchor's name may be in *data*, and the anchor's address."""
    for name in _ANCHORS:
        for value in known.get(name, ()):
            pattern = re.escape(name.encode()) + rb"\0"
            for match in islice(re.finditer(pattern, data), _MAX_PLACES):
                yield match.start(), value


def _entries_of(data: bytes, at: int, value: int) -> Iterator[int]:
    """
    Yield where entries of a symbol are.

    :param at: Offset of its name in *data*.
    :param value: Its own offset in *data*.
    """
    start = max(at - _REACH, 0) & -4
    words = array("i", data[start : min(at + _REACH, len(data)) & -4])
    if sys.byteorder == "big":
        words.byteswap()
    # Of an entry, the difference of both offsets does not depend on its place.
    distance = at - 4 - value
    for i, (first, second) in enumerate(pairwise(words)):
        if second - first == distance and start + 4 * i + first == value:
            yield start + 4 * i


def _read_table(
    data: bytes, address: int, place: int
) -> tuple[dict[str, int], Range] | None:
    """Read all entries around one."""
    first = last = place
    found: dict[str, int] = {}
    lowest, highest = len(data), 0
    for step in (-_ENTRY.size, _ENTRY.size):
        at = place
        for _ in range(_MAX_ENTRIES):
            entry = _read_entry(data, at)
            if entry is None:
                break
            name, value, name_at = entry
            found[name] = (address + value) % (1 << 64)
            lowest, highest = min(lowest, name_at), max(highest, name_at + len(name))
            first, last = min(first, at), max(last, at)
            at += step
    start, end = min(first, lowest), max(last + _ENTRY.size, highest + 1)
    # Tables of versions may be between, but nothing large.
    if end - start > 2 * _REACH:
        return None
    return found, Range(start, end - start)


def _read_entry(data: bytes, at: int) -> tuple[str, int, int] | None:
    """Return name and value of an entry, and where the name is; None if it is none."""
    if not 0 <= at <= len(data) - _ENTRY.size:
        return None
    value, name, namespace = _ENTRY.unpack_from(data, at)
    name_at, namespace_at = at + 4 + name, at + 8 + namespace
    if not 0 <= name_at < len(data) or not 0 <= namespace_at < len(data):
        return None
    match = _NAME.match(data, name_at)
    if match is None:
        return None
    return match[1].decode("ascii"), at + value, name_at


def _is_proven(found: Mapping[str, int], known: Mapping[str, Collection[int]]) -> bool:
    right = wrong = 0
    for name, value in found.items():
        addresses = known.get(name)
        if addresses is not None:
            right += value in addresses
            wrong += value not in addresses
    return right >= _MIN_PROVEN and wrong == 0
