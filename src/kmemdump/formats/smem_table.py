# SPDX-License-Identifier: GPL-2.0-or-later
"""The partition table at the end of Qualcomm SMEM."""

from __future__ import annotations

import struct

from kmemdump.errors import FormatError
from kmemdump.formats.smem_partition import Partition, PartitionRow

__all__ = ["PTABLE_SIZE", "find_private", "find_shared", "parse_ptable"]

PTABLE_SIZE = 4096
"""Bytes at the end of the region that belong to the table."""

_HOST_APPS = 0  # The processor that runs Linux.
_HOST_GLOBAL = 0xFFFE

_PTABLE = struct.Struct("<4sII20x")  # struct smem_ptable
_PTABLE_ROW = struct.Struct("<IIIHHI28x")  # struct smem_ptable_entry
_INFO = struct.Struct("<4sIIIH")  # struct smem_info
_MAX_ROWS = (PTABLE_SIZE - _PTABLE.size) // _PTABLE_ROW.size


def parse_ptable(
    data: bytes, source: str, *, required: bool
) -> tuple[list[PartitionRow], int | None]:
    """
    Parse the table.

    :param required: Whether there must be one.
    :return: The rows in use, and the number of items if the table has it.
    :raises FormatError: If the driver would refuse it.
    """
    at = len(data) - PTABLE_SIZE
    where = f"{source}+{at:#x}"
    magic, version, count = _PTABLE.unpack_from(data, at)
    if magic != b"$TOC":
        if not required:
            return [], None
        raise FormatError(
            where,
            f"starts with {magic.hex(' ')}, expected 24 54 4f 43 ($TOC) (-ENOENT)",
        )
    if version != 1:
        raise FormatError(
            where, f"partition table of version {version}, expected 1 (-EINVAL)"
        )
    if count > _MAX_ROWS:
        raise FormatError(where, f"{count} partitions, expected at most {_MAX_ROWS}")
    rows = []
    for i in range(count):
        offset, size, _, host0, host1, cacheline = _PTABLE_ROW.unpack_from(
            data, at + _PTABLE.size + i * _PTABLE_ROW.size
        )
        if offset and size:
            rows.append((offset, size, host0, host1, cacheline))
    at += _PTABLE.size + count * _PTABLE_ROW.size
    if at + _INFO.size <= len(data):
        magic, _, _, _, items = _INFO.unpack_from(data, at)
        if magic == b"SIII":
            return rows, items
    return rows, None


def find_shared(data: bytes, rows: list[PartitionRow], source: str) -> Partition:
    """
    Return the partition that all hosts share.

    :raises FormatError: If there is none, or its header is wrong.
    """
    for row in rows:
        if row[2] == row[3] == _HOST_GLOBAL:
            return Partition.parse(data, row, source)
    raise FormatError(
        source, "no partition with both hosts 0xfffe, expected a global one (-EINVAL)"
    )


def find_private(
    data: bytes, rows: list[PartitionRow], source: str
) -> dict[int, Partition]:
    """
    Return the partitions that this processor shares with each of the others.

    :raises FormatError: If there are two for one host, or a header is wrong.
    """
    partitions: dict[int, Partition] = {}
    for row in rows:
        host0, host1 = row[2], row[3]
        if _HOST_APPS not in (host0, host1):
            continue
        remote = host1 if host0 == _HOST_APPS else host0
        if remote in partitions:
            raise FormatError(
                source, f"two partitions for host {remote}, expected one (-EINVAL)"
            )
        partitions[remote] = Partition.parse(data, row, source)
    return partitions
