# SPDX-License-Identifier: GPL-2.0-or-later
"""
Flattened files: a kdump-compressed dump cut into records, to go through a pipe.

makedumpfile writes them with -F, and QEMU's dump-guest-memory whenever it writes kdump
formats, except those named kdump-raw-* (QEMU 8.2 and later). Reading them directly
saves the copy that ``makedumpfile -R`` would make.
"""

from __future__ import annotations

import heapq
import struct
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from kmemdump.errors import FormatError

__all__ = ["FLAT_MAGIC", "FlatFile", "FlatRecord", "parse_flat"]

FLAT_MAGIC = b"makedumpfile\0\0\0\0"

# struct makedumpfile_header and makedumpfile_data_header; big-endian.
_HEADER = struct.Struct(">16sqq")
_HEADER_SIZE = 4096
_TYPE = 1
_VERSION = 1
_RECORD = struct.Struct(">qq")
_END = -1
_MAX_RECORDS = 4_000_000

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True, order=True)
class FlatRecord:
    """A record of a flattened file."""

    offset: int
    """Offset in the reassembled file in bytes."""
    size: int
    """Size in bytes."""
    position: int
    """Offset of the data in the flattened file in bytes."""


class FlatFile:
    """Reads a flattened file as if it were reassembled."""

    def __init__(self, read: Read, records: list[FlatRecord], missing: int = 0) -> None:
        self._read = read
        self._records = records
        self._starts = [record.offset for record in records]
        self.size = max((record.offset + record.size for record in records), default=0)
        """Size of the reassembled file in bytes."""
        self.missing = missing
        """Least number of bytes that the flattened file lacks at its end."""

    def read(self, offset: int, count: int) -> bytes:
        """Read; gaps between records are zeros, as in the reassembled file."""
        pieces = []
        end = min(offset + count, self.size)
        i = max(bisect_right(self._starts, offset) - 1, 0)
        while offset < end:
            record = self._records[i] if i < len(self._records) else None
            if record is None or record.offset > offset:
                hole = min(end, record.offset if record else end)
                pieces.append(bytes(hole - offset))
                offset = hole
                continue
            skip = offset - record.offset
            if skip < record.size:
                wanted = min(end - offset, record.size - skip)
                piece = self._read(record.position + skip, wanted)
                pieces.append(piece)
                offset += len(piece)
                if len(piece) < wanted:
                    break
            i += 1
        return b"".join(pieces)


def parse_flat(read: Read, size: int, source: str) -> FlatFile:
    """
    Parse the record headers of a flattened file.

    A file without the record that marks the end (its writer died) is read as far as
    it goes.

    :raises FormatError: If a header is wrong.
    """
    raw = read(0, _HEADER.size)
    if len(raw) < _HEADER.size or not raw.startswith(FLAT_MAGIC):
        raise FormatError(source, f"starts with {raw[:16]!r}, expected {FLAT_MAGIC!r}")
    _magic, type_, version = _HEADER.unpack(raw)
    if (type_, version) != (_TYPE, _VERSION):
        raise FormatError(
            source, f"flattened file of type {type_}, version {version}, expected 1, 1"
        )
    records: list[FlatRecord] = []
    position = _HEADER_SIZE
    ended = False
    while position + _RECORD.size <= size:
        raw = read(position, _RECORD.size)
        if len(raw) < _RECORD.size:
            break
        offset, count = _RECORD.unpack(raw)
        if offset == _END:
            ended = True
            break
        if offset < 0 or count <= 0:
            raise FormatError(
                f"{source}+{position:#x}", f"record of {count} bytes for {offset:#x}"
            )
        if len(records) == _MAX_RECORDS:
            raise FormatError(source, f"more than {_MAX_RECORDS} records")
        position += _RECORD.size
        held = min(count, size - position)
        if held > 0:
            records.append(FlatRecord(offset, held, position))
        position += count
    missing = 0 if ended else max(position + _RECORD.size - size, 1)
    return FlatFile(read, _resolve(records), missing)


def _resolve(records: list[FlatRecord]) -> list[FlatRecord]:
    """Return sorted records without overlaps; those later in the file win."""
    edges = sorted(
        edge
        for i, record in enumerate(records)
        for edge in ((record.offset, i), (record.offset + record.size, i))
    )
    resolved: list[FlatRecord] = []
    covering: list[int] = []  # Heap of records, the last one first.
    previous = 0
    for at, i in edges:
        while covering and (top := records[-covering[0]]).offset + top.size <= previous:
            heapq.heappop(covering)
        if covering and at > previous:
            top = records[-covering[0]]
            skip = previous - top.offset
            resolved.append(FlatRecord(previous, at - previous, top.position + skip))
        previous = at
        if records[i].offset == at:
            heapq.heappush(covering, -i)
    return resolved
