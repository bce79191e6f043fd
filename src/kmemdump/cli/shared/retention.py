# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that say how much room core images may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from kmemdump.cli.shared.options import grouped
from kmemdump.cli.shared.sizes import size_of_option
from kmemdump.coreimage.retention import Limits

__all__ = ["retention_options"]


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
            callback=size_of_option,
            default="4G",
            show_default=True,
            metavar="SIZE",
            help="Keep core images of this size, all together.",
        ),
        click.option(
            "--min-free",
            callback=size_of_option,
            metavar="SIZE",
            help="Keep this much of the file system free; by default 5 %, at most 1G.",
        ),
    )
