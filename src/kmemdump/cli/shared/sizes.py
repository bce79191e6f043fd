# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes, as people type them."""

from __future__ import annotations

import re

import click

from kmemdump.errors import UsageError

__all__ = ["memory_of_option", "parse_size", "size_of_option"]

_SIZE = re.compile(r"(\d{1,18})(?:\.(\d{1,3}))?\s*([KMGT]?)(i?)B?", re.I)
_UNITS = ("", "K", "M", "G", "T")
_DECIMAL: dict[str, int] = {unit: 1000**i for i, unit in enumerate(_UNITS)}
_BINARY: dict[str, int] = {unit: 1024**i for i, unit in enumerate(_UNITS)}


def parse_size(text: str) -> int:
    """
    Return a number of bytes: ``500M``, ``1.5 GB`` and ``4GiB`` are understood.

    :raises ValueError: If it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    whole, fraction, unit, binary = match.groups()
    factor = (_BINARY if binary else _DECIMAL)[unit.upper()]
    thousandths = int((fraction or "").ljust(3, "0"))
    return int(whole) * factor + thousandths * factor // 1000


def size_of_option(
    _context: click.Context, option: click.Parameter, text: str | None
) -> int | None:
    """
    Return the size that an option gives: the callback of a :func:`click.option`.

    :raises UsageError: If it is none.
    """
    if text is None:
        return None
    try:
        return parse_size(text)
    except ValueError:
        raise UsageError(
            f"{option.opts[0]} {text!r}: expected a size, such as 500M or 4G"
        ) from None


_LEAST_MEMORY = 100 * 1000**2
"""Bytes with which a report of a small machine is whole."""


def memory_of_option(
    context: click.Context, option: click.Parameter, text: str | None
) -> int | None:
    """
    Return the memory that a process may take: the callback of a :func:`click.option`.

    :raises UsageError: If it is no size, or too little to work at all.
    """
    size = size_of_option(context, option, text)
    if size is not None and size < _LEAST_MEMORY:
        raise UsageError(
            f"{option.opts[0]} {text!r}: is {size} bytes, expected at least 100M"
        )
    return size
