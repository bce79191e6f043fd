# SPDX-License-Identifier: GPL-2.0-or-later
"""
The region array of a minidump subsystem, updated so that it is valid at any time.

The machine may die between any two stores, and its firmware then dumps the valid ones
of the first ``region_count`` rows. So a row is filled while it is invalid, then made
valid, then counted. When a row is removed, the others move down as copies: for a moment
a region is there twice, and it is never missing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from kmemdump.errors import BackendError
from kmemdump.formats.minidump import REGION_SIZE, TableRegion, Word, pack_region
from kmemdump.memory.physical import WritableMemory

__all__ = ["RegionTable"]

# Offsets in struct minidump_subsystem and struct minidump_region.
_COUNT_AT = 16
_VALID_AT = 20
_ADDRESS_AT = 24
_SIZE_AT = 32

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class RegionTable:
    """
    The rows of one owner, the last ones of the array.

    :param subsystem: Physical address of the subsystem's row.
    :param array: Physical address of the region array.
    :param first: Number of rows of others before ours.
    :param limit: Number of rows in the array.
    """

    def __init__(
        self,
        memory: WritableMemory,
        subsystem: int,
        array: int,
        first: int,
        limit: int,
    ) -> None:
        self.rows: list[TableRegion] = []
        self._memory = memory
        self._subsystem = subsystem
        self._array = array
        self._first = first
        self._limit = limit
        self._broken = ""

    @property
    def capacity(self) -> int:
        """Number of rows that we may use."""
        return self._limit - self._first

    def append(self, region: TableRegion) -> None:
        """
        Add a row behind the others.

        :raises BackendError: If the table is full, or somebody else changes it.
        """
        index = len(self.rows)
        if index >= self.capacity:
            raise BackendError(
                f"the minidump table is full: {self._first} rows of others and "
                f"{index} of ours"
            )
        with self._changing():
            self._fill(index, region)
            self._set_valid(index, Word.VALI)
            self._set_count(index + 1)
        self.rows.append(region)

    def remove(self, index: int) -> None:
        """
        Remove a row, and close the gap.

        :raises BackendError: If somebody else changes the table.
        """
        last = len(self.rows) - 1
        with self._changing():
            for i in range(index, last):
                self._set_valid(i, Word.INVA)
                self._fill(i, self.rows[i + 1])
                self._set_valid(i, Word.VALI)
            self._set_count(last)
            self._memory.write(self._row(last), bytes(REGION_SIZE))
        del self.rows[index]

    def move(self, index: int, address: int, size: int) -> None:
        """
        Point a row to another range, which holds its bytes already.

        If both address and size change, one of the two ranges is dumped with the larger
        size in between: with extra bytes, but none missing.

        :raises BackendError: If somebody else changes the table.
        """
        old = self.rows[index]
        stores = [(_ADDRESS_AT, address)] if address != old.address else []
        if size != old.size:
            stores.insert(0 if size > old.size else 1, (_SIZE_AT, size))
        with self._changing():
            for at, value in stores:
                self._memory.write(self._row(index) + at, _U64.pack(value))
        self.rows[index] = replace(old, address=address, size=size)

    def _row(self, index: int) -> int:
        return self._array + (self._first + index) * REGION_SIZE

    def _fill(self, index: int, region: TableRegion) -> None:
        self._memory.write(
            self._row(index), pack_region(replace(region, valid=Word.INVA))
        )

    def _set_valid(self, index: int, word: Word) -> None:
        self._memory.write(self._row(index) + _VALID_AT, _U32.pack(word))

    def _set_count(self, count: int) -> None:
        self._memory.write(self._subsystem + _COUNT_AT, _U32.pack(self._first + count))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Refuse to change a table that somebody else has changed."""
        if self._broken:
            raise BackendError(
                f"an earlier store into the minidump table failed: {self._broken}"
            )
        raw = self._memory.read(self._subsystem + _COUNT_AT, _U32.size)
        found, expected = _U32.unpack(raw)[0], self._first + len(self.rows)
        if found != expected:
            raise BackendError(
                f"somebody else changes the minidump table: it has {found} rows, "
                f"expected {expected}"
            )
        try:
            yield
        except BaseException as error:
            # The table is valid, and its contents are not known.
            self._broken = str(error) or type(error).__name__
            raise
