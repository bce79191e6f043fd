# SPDX-License-Identifier: GPL-2.0-or-later
"""Text that ramoops kept in RAM, found in whatever holds that RAM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice, pairwise

from kmemdump.errors import FormatError, NotCapturedError, UnsupportedError
from kmemdump.formats.ramoops import (
    RAMOOPS_MAGIC,
    RamoopsZone,
    parse_record,
    parse_zone,
)
from kmemdump.formats.ramoops_ecc import find_parity, repair
from kmemdump.memory.physical import Memory, places_of
from kmemdump.memory.ranges import Range, intersect

__all__ = ["Ramoops", "ZoneText", "read_ramoops"]

_ALIGNMENT = 2
"""Several zones share an area, and are as large as its size, divided, allows."""
_MAX_ZONES = 4096
_MAX_ZONE = 4 << 20
_SAMPLE, _MOSTLY = 1024, 0.9


@dataclass(frozen=True, slots=True)
class ZoneText:
    """What one zone has kept."""

    address: int
    """Physical address of the zone in bytes."""
    text: str
    seconds: float | None = None
    """When a panic or oops wrote it, in seconds since 1970, if one did."""
    problems: tuple[str, ...] = ()
    """What is wrong with it."""


@dataclass(frozen=True, slots=True)
class Ramoops:
    """What all zones have kept."""

    zones: tuple[ZoneText, ...]
    """By address."""
    unchecked: str = ""
    """Why errors were not looked for, if they were not."""


def read_ramoops(memory: Memory, source: str) -> Ramoops:
    """
    Find what ramoops kept in a memory.

    Nobody tells where its zones are, or how large: each starts with a mark. Parity
    is used to correct errors, if a zone has some and reedsolo is installed.

    :param source: Name of the memory, for messages.
    """
    unchecked = ""
    try:
        find_parity(b"")
    except UnsupportedError as error:
        unchecked = str(error)
    marks = places_of(memory, RAMOOPS_MAGIC, _ALIGNMENT)
    places = list(islice(marks, _MAX_ZONES))
    kept = []
    for address, following in pairwise([*places, 1 << 64]):
        reach = Range(address, min(following - address, _MAX_ZONE))
        part = next(iter(intersect([reach], memory.ranges)), None)
        if part is None or part.start != address:
            continue
        try:
            data = memory.read(part.start, part.size)
        except NotCapturedError:
            continue
        where = f"{source}: ramoops zone at {address:#x}"
        found = _read_zone(data, where, address, check=not unchecked)
        if found is not None:
            kept.append(found)
    return Ramoops(tuple(kept), unchecked)


def _read_zone(
    data: bytes, source: str, address: int, *, check: bool
) -> ZoneText | None:
    problems = []
    parity = 0
    try:
        if check:
            size, parity = find_parity(data)
            data = data[:size]
        if parity:
            repaired = repair(data, parity, source)
            data = repaired.data
            if repaired.corrected:
                problems.append(f"{repaired.corrected} wrong bytes are corrected")
            if repaired.lost:
                problems.append(f"{repaired.lost} blocks of 128 bytes are damaged")
        zone = parse_zone(data, source, ecc_size=parity)
    except FormatError:
        return None  # The mark stands in other memory, too.
    if not zone.text or not (parity or _is_text(zone.text)):
        return None
    found = _interpret(zone, address)
    return replace(found, problems=(*problems, *found.problems))


def _is_text(data: bytes) -> bool:
    """Tell whether it looks like what ramoops keeps: the mark alone is but 4 bytes."""
    start = data[:_SAMPLE].decode("utf-8", "replace")
    plain = sum(it.isprintable() or it in "\n\t\x1b" for it in start)
    return start.startswith("====") or plain >= len(start) * _MOSTLY


def _interpret(zone: RamoopsZone, address: int) -> ZoneText:
    try:
        record = parse_record(zone)
    except FormatError as error:
        return ZoneText(address, "", None, (str(error),))
    if record is None:
        return ZoneText(address, zone.text.decode("utf-8", "replace"))
    return ZoneText(address, record.text, record.seconds)
