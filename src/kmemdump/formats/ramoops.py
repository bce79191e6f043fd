# SPDX-License-Identifier: GPL-2.0-or-later
"""
Zones of ramoops: text in RAM that survives a reboot.

Layout as in Linux ``fs/pstore/ram_core.c``, the head of a record as in
``fs/pstore/ram.c``, compression as in ``fs/pstore/platform.c``. How an area is split
into zones depends on parameters and on the kernel, and the order of zones has changed:
each is found by its signature. Errors are corrected in
:mod:`kmemdump.formats.ramoops_ecc`.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from kmemdump.errors import FormatError
from kmemdump.formats.ramoops_ecc import capacity_with

__all__ = [
    "RAMOOPS_MAGIC",
    "RamoopsZone",
    "Record",
    "parse_record",
    "parse_zone",
]

RAMOOPS_MAGIC = b"DBGC"
"""The start of every zone except that of the function trace."""

_HEADER = struct.Struct("<III")  # struct persistent_ram_buffer
_SIGNATURE = 0x43474244
_HEAD = re.compile(rb"====(\d{1,20})\.(\d{1,9})(?:-([CD]))?\n")
_MAX_RECORD = 16 << 20


@dataclass(frozen=True, slots=True)
class RamoopsZone:
    """One zone."""

    name: str
    text: bytes
    """Its contents, oldest first."""


def parse_zone(data: bytes, source: str, *, ecc_size: int = 0) -> RamoopsZone:
    """
    Parse one zone.

    :param data: The whole zone.
    :param ecc_size: Bytes of parity for each block of 128, as the module parameter.
    :raises FormatError: If there is no zone, or its ring is not within the zone.
    """
    if len(data) < _HEADER.size:
        raise FormatError(source, f"{len(data)} bytes, expected a zone's header of 12")
    if ecc_size < 0:
        raise FormatError(source, f"parity of {ecc_size} bytes, expected 0 or more")
    signature, start, size = _HEADER.unpack_from(data)
    # The function trace has a kernel version in the lower 24 bits.
    if (signature ^ _SIGNATURE) >> 24:
        raise FormatError(
            source,
            f"signature {signature:#010x}, expected {_SIGNATURE:#010x} (ramoops)",
        )
    capacity = capacity_with(len(data), ecc_size)
    if size > capacity or start > size:
        raise FormatError(
            source,
            f"{size} bytes starting at {start}, expected them within {capacity}",
        )
    ring = data[_HEADER.size : _HEADER.size + size]
    return RamoopsZone(source, ring[start:] + ring[:start])


@dataclass(frozen=True, slots=True)
class Record:
    """The log that a panic or oops left in a zone."""

    seconds: float
    """Time of the record in seconds since 1970."""
    text: str
    """Starts with a line that names the kind of event and the number of the part."""


def parse_record(zone: RamoopsZone) -> Record | None:
    """
    Parse the text of a zone for panics.

    :return: ``None`` if it is a zone of another kind, whose text is plain.
    :raises FormatError: If it is compressed and cannot be decompressed.
    """
    match = _HEAD.match(zone.text)
    if match is None:
        return None
    seconds = int(match[1]) + int(match[2].ljust(9, b"0")) / 1e9
    text = zone.text[match.end() :]
    if match[3] == b"C":
        text = _inflate(text, zone.name)
    return Record(seconds, text.decode("utf-8", "replace"))


def _inflate(data: bytes, source: str) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)  # Without zlib's own header.
    try:
        text = inflater.decompress(data, _MAX_RECORD)
    except zlib.error as error:
        raise FormatError(source, f"compressed, expected deflate: {error}") from None
    if not inflater.eof:
        raise FormatError(
            source,
            f"compressed, with an end other than that of its {len(text)} bytes of text",
        )
    return text
