# SPDX-License-Identifier: GPL-2.0-or-later
"""
QEMU's ``info mtree -f``: the RAM at guest-physical addresses, and its backends.

The text is meant for people. No other output of all versions of QEMU since 2.10 says
where in the guest a memory backend appears.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from kmemdump.errors import FormatError

__all__ = ["FlatRange", "parse_mtree"]

_MAX_TEXT = 32 << 20
_MAX_SECTIONS = 1 << 16

# mtree_print_flatview() in QEMU's softmmu/memory.c. Names may have spaces. The
# accelerator that has the section mapped may follow the name.
_SECTION = re.compile(
    r"\s+([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?[0-9]+, ([a-z/-]+)\): (.*?)"
    r"(?: @([0-9a-f]{16}))?(?: (?:kvm|KVM|hvf|HVF|xen|Xen|whpx|WHPX))?"
)
_RAM = {"ram", "rom", "nv-ram", "nv-rom"}
"""A ROM may be RAM that the firmware made read-only (the PC's low megabyte)."""


@dataclass(frozen=True, slots=True, order=True)
class FlatRange:
    """A range of guest-physical memory that is a part of a memory region."""

    address: int
    """Guest-physical address in bytes."""
    size: int
    """Size in bytes."""
    region: str
    """Name of QEMU's memory region: for RAM that of the memory backend."""
    offset: int
    """Offset in the memory region in bytes."""


def parse_mtree(text: str, source: str) -> list[FlatRange]:
    """
    Return the RAM and ROM in the address space ``memory``, sorted.

    :param text: What ``info mtree -f`` printed.
    :raises FormatError: If there is no such address space, or its ranges are wrong.
    """
    if len(text) > _MAX_TEXT:
        raise FormatError(
            f"{source}: info mtree",
            f"{len(text)} characters, expected at most {_MAX_TEXT}",
        )
    for view in text.split("FlatView #")[1:]:
        lines = view.split("\n")
        if any(line.startswith(' AS "memory",') for line in lines):
            return _parse_view(lines, f"{source}: info mtree")
    raise FormatError(f"{source}: info mtree", 'no address space "memory"')


def _parse_view(lines: list[str], where: str) -> list[FlatRange]:
    sections = []
    for line in lines:
        match = _SECTION.fullmatch(line.rstrip("\r"))
        if match is None or match[3] not in _RAM:
            continue
        start, last = int(match[1], 16), int(match[2], 16)
        if last < start:
            raise FormatError(
                where, f"range {match[1]}-{match[2]} ends before it starts"
            )
        offset = int(match[5], 16) if match[5] else 0
        sections.append(FlatRange(start, last - start + 1, match[4], offset))
        if len(sections) > _MAX_SECTIONS:
            raise FormatError(where, f"more than {_MAX_SECTIONS} ranges of RAM")
    sections.sort()
    for left, right in pairwise(sections):
        if left.address + left.size > right.address:
            raise FormatError(where, f"two ranges of RAM at {right.address:#x}")
    return sections
