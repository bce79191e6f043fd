# SPDX-License-Identifier: GPL-2.0-or-later
"""
The tables of the ORC unwinder, found by their contents.

One has the places of a kernel's code, ascending, each as a signed word that is an
offset from its own place; six bytes for each of them follow (ORC_UNWIND_TABLE in
include/asm-generic/vmlinux.lds.h, struct orc_entry in
arch/x86/include/asm/orc_types.h). Debuggers unwind by them, and need to know where
they are: without CONFIG_KALLSYMS_ALL, no symbol says so.
"""

from __future__ import annotations

import sys
from array import array
from typing import NamedTuple

__all__ = ["OrcTables", "find_orc"]

_ENTRY = 6
_HASH = 20
_DISTINCT = 16
"""Distinct bytes of a hash: one of ten thousand has fewer."""
_STEP = 2048
"""Words between two looks: a table has a hundred thousand."""
_SAMPLE = 64
"""Words that must ascend."""
_MIN_ENTRIES = 4096
_UNUSED = 0xF0
"""Bits of an entry's last byte that no version uses."""


class OrcTables(NamedTuple):
    """Offsets of the tables in the data."""

    header: int | None
    """The hash of the entries' definition, before the places; ``None`` if none is."""
    places: int
    entries: int
    """Where the places end, and the entries start."""
    end: int


def find_orc(data: bytes, text: range) -> OrcTables | None:
    """
    Find the tables.

    :param data: The kernel's image.
    :param text: Offsets in *data* of the kernel's code, but for that of its start.
    :return: ``None`` if there are none, or what was found is not proven.
    """
    words = array("i", data[: len(data) & -4])
    if sys.byteorder == "big":
        words.byteswap()

    def place(index: int) -> int:
        return 4 * index + words[index]

    done = 0
    for sample in range(0, len(words) - _SAMPLE, _STEP):
        if sample < done or place(sample) not in text:
            continue
        places = [place(sample + i) for i in range(_SAMPLE)]
        # Words of zero are places that ascend, too.
        if places != sorted(places) or not any(words[sample : sample + _SAMPLE]):
            continue
        first = last = sample
        while first > 0 and text.start <= place(first - 1) <= place(first):
            first -= 1
        end = len(words) - 1
        while last < end and place(last) <= place(last + 1):
            last += 1
        done = last
        found = _prove(data, 4 * first, 4 * (last + 1))
        if found is not None:
            return found
    return None


def _prove(data: bytes, start: int, end: int) -> OrcTables | None:
    """Return the tables if each place has an entry."""
    count = (end - start) // 4
    stop = end + _ENTRY * count
    if count < _MIN_ENTRIES or stop > len(data):
        return None
    if any(byte & _UNUSED for byte in data[end + _ENTRY - 1 : stop : _ENTRY]):
        return None
    # Since Linux kernel commit b9f174c811e3 ("x86/unwind/orc: Add ELF section with ORC
    # version identifier") (in v6.5), a hash is before them. Other data repeat bytes.
    header = start - _HASH
    has_hash = header >= 0 and len({*data[header:start]}) >= _DISTINCT
    return OrcTables(header if has_hash else None, start, end, stop)
