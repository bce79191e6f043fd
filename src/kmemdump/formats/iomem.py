# SPDX-License-Identifier: GPL-2.0-or-later
"""``/proc/iomem``: the uses of physical addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kmemdump.errors import FormatError
from kmemdump.memory.ranges import Range, intersect, subtract

__all__ = ["Resource", "find_unlisted", "find_use", "parse_iomem"]

# "  40210000-4166ffff : Kernel code"
_LINE = re.compile(r" *([0-9a-f]{8,16})-([0-9a-f]{8,16}) : (.*)")
_MAX_LINES = 1 << 16
_FREE = ("reserved",)
"""Names of memory not in use: no-map in a device tree, ``memmap=``, firmware."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A range that is used for something."""

    range: Range
    name: str


def parse_iomem(text: str, source: str = "/proc/iomem") -> list[Resource]:
    """
    Parse the text of ``/proc/iomem``.

    :raises FormatError: If *text* is something else, or has no addresses.
    """
    found: list[Resource] = []
    for number, line in enumerate(text.splitlines()[:_MAX_LINES], 1):
        match = _LINE.fullmatch(line)
        if match is None:
            where = f"{source}, line {number}"
            raise FormatError(where, f"{line[:60]!r}, expected START-END : NAME")
        start, last = int(match[1], 16), int(match[2], 16)
        if last < start:
            raise FormatError(f"{source}, line {number}", "ends before it starts")
        found.append(Resource(Range(start, last - start + 1), match[3]))
    if not any(resource.range.start for resource in found):
        # Without CAP_SYS_ADMIN all addresses read 0.
        raise FormatError(
            source, "hides its addresses, expected to read it with CAP_SYS_ADMIN"
        )
    return found


def find_use(resources: Iterable[Resource], wanted: Range) -> str | None:
    """
    Return the use of a range; ``None`` if all that is listed of it is reserved.

    See `find_unlisted` for the rest.
    """
    uses: Sequence[str] = [
        resource.name
        for resource in resources
        if resource.name.lower() not in _FREE and intersect([resource.range], [wanted])
    ]
    return uses[-1] if uses else None


def find_unlisted(resources: Iterable[Resource], wanted: Range) -> list[Range]:
    """
    Return the parts of a range that no line has.

    That may be memory that a device tree keeps from the kernel, the registers of a
    device without a driver, or nothing.
    """
    return subtract([wanted], [resource.range for resource in resources])
