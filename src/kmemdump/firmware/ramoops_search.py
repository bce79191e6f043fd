# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the text that ramoops kept in a machine's memory."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, pairwise

from kmemdump.errors import FormatError, NotCapturedError, UnsupportedError
from kmemdump.formats.ramoops import (
    RAMOOPS_MAGIC,
    parse_record,
    parse_zone,
)
from kmemdump.formats.ramoops_ecc import find_parity, repair
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import ADDRESS_SPACE, Range, intersect
from kmemdump.memory.search import find_bytes

__all__ = ["Ramoops", "ZoneText", "read_ramoops"]

_ALIGNMENT = 2
"""A zone's size is that of a memory area, divided by the number of zones in it."""
_MAX_ZONES = 4096
_MAX_ZONE = 4 << 20
_SAMPLE, _MOSTLY = 1024, 0.9


@dataclass(frozen=True, slots=True)
class ZoneText:
    """The text of one zone."""

    address: int
    """Physical address of the zone in bytes."""
    text: str
    seconds: float | None = None
    """When a panic or oops wrote it, in seconds since 1970; ``None`` for other text."""
    problems: tuple[str, ...] = ()
    """Damage, one line each."""


@dataclass(frozen=True, slots=True)
class Ramoops:
    """The text of all zones."""

    zones: tuple[ZoneText, ...]
    """By address."""
    unchecked: str = ""
    """Why errors could not be corrected; empty if they could."""


def read_ramoops(memory: Memory, source: str) -> Ramoops:
    """
    Find the text that ramoops kept in a memory.

    The zones are found by the magic number that each starts with. Errors are corrected
    if a zone has parity and reedsolo is installed.

    :param source: Name of the memory, for messages.
    """
    unchecked = ""
    try:
        find_parity(b"")
    except UnsupportedError as error:
        unchecked = str(error)
    found = find_bytes(memory, RAMOOPS_MAGIC, _ALIGNMENT)
    addresses = list(islice(found, _MAX_ZONES))
    zones = []
    for address, following in pairwise([*addresses, ADDRESS_SPACE]):
        reach = Range(address, min(following - address, _MAX_ZONE))
        part = next(iter(intersect([reach], memory.ranges)), None)
        if part is None or part.start != address:
            continue
        try:
            data = memory.read(part.start, part.size)
        except NotCapturedError:
            continue
        where = f"{source}: ramoops zone at {address:#x}"
        zone = _read_zone(data, where, address, check=not unchecked)
        if zone is not None:
            zones.append(zone)
    return Ramoops(tuple(zones), unchecked)


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
        return None  # The magic number is in other memory, too.
    if not zone.text or not (parity or _is_text(zone.text)):
        return None
    text, seconds = zone.text.decode("utf-8", "replace"), None
    try:
        record = parse_record(zone)
    except FormatError as error:
        text = ""
        problems.append(str(error))
    else:
        if record is not None:
            text, seconds = record.text, record.seconds
    return ZoneText(address, text, seconds, tuple(problems))


def _is_text(data: bytes) -> bool:
    """Return whether it looks like text: the magic number alone has only 4 bytes."""
    start = data[:_SAMPLE].decode("utf-8", "replace")
    plain = sum(it.isprintable() or it in "\n\t\x1b" for it in start)
    return start.startswith("====") or plain >= len(start) * _MOSTLY
