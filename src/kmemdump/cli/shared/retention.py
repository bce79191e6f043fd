# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that say how much room core images may take."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from kmemdump.cli.shared.options import grouped
from kmemdump.coreimage.retention import Limits
from kmemdump.errors import UsageError

__all__ = ["parse_size", "retention_options"]

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


def _parse(
    _context: click.Context, option: click.Parameter, text: str | None
) -> int | None:
    if text is None:
        return None
    try:
        return parse_size(text)
    except ValueError:
        raise UsageError(
            f"{option.opts[0]} {text!r}: expected a size, such as 500M or 4G"
        ) from None


def retention_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--keep``, ``--max-bytes`` and ``--min-free``, as parameter *limits*."""
    defaults = Limits()
    return grouped(
        function,
        "limits",
        Limits,
        click.option(
            "--keep",
            type=click.IntRange(1, 1_000_000),
            default=defaults.keep,
            show_default=True,
            metavar="N",
            help="Keep this many core images of each VM.",
        ),
        click.option(
            "--max-bytes",
            callback=_parse,
            default="4G",
            show_default=True,
            metavar="SIZE",
            help="Keep core images of this size, all together.",
        ),
        click.option(
            "--min-free",
            callback=_parse,
            metavar="SIZE",
            help="Keep this much of the file system free; by default 5 %, at most 1G.",
        ),
    )
