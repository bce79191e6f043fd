# SPDX-License-Identifier: GPL-2.0-or-later
"""
Parity of ramoops zones: finds and corrects the errors of RAM that had no power.

As ``fs/pstore/ram_core.c`` writes it: a Reed-Solomon code over bytes, for each 128
bytes of the ring and for the zone's header. Where nothing was ever written, parity is
meaningless.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

from kmemdump.errors import FormatError, UnsupportedError
from kmemdump.installing import describe_extra

__all__ = ["PARITY_SIZES", "Repaired", "capacity_with", "find_parity", "repair"]

PARITY_SIZES = (16, 8, 32, 64)
"""Sizes in bytes that are tried if none is given; 16 is the module's default."""

_MAGIC = b"DBGC"
_HEADER_SIZE = 12
_START_AND_SIZE = struct.Struct("<4xII")
_BLOCK = 128
_POLYNOMIAL = 0x11D
_MAX_PARITY = 127
"""Together with a block this is the longest code word."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """A zone whose errors are corrected, as far as that is possible."""

    data: bytes
    corrected: int
    """Bytes that were wrong."""
    lost: int
    """Blocks of 128 bytes with more errors than the parity can correct."""


def capacity_with(size: int, parity: int) -> int:
    """
    Return how many bytes of text a zone holds.

    :param size: Size of the zone in bytes.
    :param parity: Bytes of parity for each block, 0 for none.
    """
    capacity = size - _HEADER_SIZE
    if not parity:
        return capacity
    return capacity - (_blocks(size, parity) + 1) * parity


def find_parity(data: bytes) -> tuple[int, int]:
    """
    Find the size of a zone, and of its parity.

    :param data: From the zone's start on, as far as it may reach.
    :return: Size in bytes of the zone (that of *data*, or a power of two), and of the
        parity of a block: 0 if none of the usual sizes fits.
    :raises UnsupportedError: If reedsolo is not installed.
    """
    _codec(PARITY_SIZES[0])
    largest = len(data).bit_length() - 1
    for size in (len(data), *(1 << shift for shift in range(largest, 9, -1))):
        for parity in PARITY_SIZES:
            if capacity_with(size, parity) > 0:
                header = data[:_HEADER_SIZE] + data[size - parity : size]
                found = _correct(header, parity)
                # Zeros are a code word as well, and may be the nearest one.
                if found is not None and found[0].startswith(_MAGIC):
                    return size, parity
    return len(data), 0


def repair(data: bytes, parity: int, source: str) -> Repaired:
    """
    Correct the errors of a zone.

    :param data: The whole zone.
    :param parity: Bytes of parity for each block.
    :raises FormatError: If the zone has no room for so much parity, or its header is
        beyond repair.
    :raises UnsupportedError: If reedsolo is not installed.
    """
    capacity = capacity_with(len(data), parity) if 0 < parity <= _MAX_PARITY else 0
    if capacity <= 0:
        raise FormatError(
            source,
            f"{len(data)} bytes cannot be a zone with {parity} bytes of parity",
        )
    fixed = bytearray(data)
    found = _correct(data[:_HEADER_SIZE] + data[len(data) - parity :], parity)
    if found is None:
        raise FormatError(source, "its header has more errors than its parity corrects")
    header, corrected = found
    fixed[:_HEADER_SIZE] = header[:_HEADER_SIZE]
    _, held = _START_AND_SIZE.unpack(header[:_HEADER_SIZE])
    lost = 0
    for at in range(0, min(held, capacity), _BLOCK):
        start = _HEADER_SIZE + at
        end = min(start + _BLOCK, _HEADER_SIZE + capacity)
        parity_at = _HEADER_SIZE + capacity + at // _BLOCK * parity
        block = data[start:end] + data[parity_at : parity_at + parity]
        found = _correct(block, parity)
        if found is None:
            lost += 1
        else:
            fixed[start:end] = found[0][: end - start]
            corrected += found[1]
    return Repaired(bytes(fixed), corrected, lost)


def _blocks(size: int, parity: int) -> int:
    return -(-(size - _HEADER_SIZE - parity) // (_BLOCK + parity))


def _correct(block: bytes, parity: int) -> tuple[bytes, int] | None:
    """Return a block and its parity, corrected, and how many errors there were."""
    codec, failure = _codec(parity)
    try:
        _, whole, places = codec.decode(block)
    except failure:
        return None
    except (ValueError, IndexError, ZeroDivisionError):  # The data is not a code word.
        return None
    return bytes(whole), len(places)


@cache
def _codec(parity: int) -> tuple[Any, type[Exception]]:
    try:
        import reedsolo
    except ImportError as error:
        raise UnsupportedError(
            "parity of ramoops: reedsolo is not there\n"
            f"install it: {describe_extra('ramoops')}"
        ) from error
    codec = reedsolo.RSCodec(parity, nsize=255, fcr=0, prim=_POLYNOMIAL)
    return codec, reedsolo.ReedSolomonError
