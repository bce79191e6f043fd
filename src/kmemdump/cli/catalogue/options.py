# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that several parts of ``catalogue`` share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from kmemdump.cli.shared.messages import print_message
from kmemdump.cli.shared.sizes import memory_of_option
from kmemdump.errors import UnsupportedError, UsageError
from kmemdump.installing import describe_extra

if TYPE_CHECKING:
    from kmemdump.catalogue.store import Catalogue

__all__ = [
    "check_catalogue",
    "filter_options",
    "from_option",
    "json_option",
    "limits_options",
    "open_catalogue",
    "tell_newer",
    "time_option",
]

_EXTRA = {"distributed": "dask"}
"""Packages to the extras that bring them; the others come with ``catalogue``."""
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_MAX_NUMBER = 5  # Digits.

from_option = click.option(
    "--from",
    "place",
    required=True,
    metavar="PLACE",
    help="The catalogue: a folder, or a URL of fsspec.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _parse_time(
    _context: click.Context, option: click.Parameter, text: str | None
) -> datetime | None:
    if text is None:
        return None
    now = datetime.now(UTC)
    match = re.fullmatch(rf"(\d{{1,{_MAX_NUMBER}}})([hdw])", text)
    try:
        if match:
            return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
        time = datetime.fromisoformat(text)
        # Without a zone it is UTC, as everything in a catalogue.
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option.opts[0]} {text!r}: expected a time as 2026-11-28, "
            "2026-11-28T15:00, or a time ago as 12h, 7d, 2w"
        ) from None


time_option = functools.partial(click.option, metavar="TIME", callback=_parse_time)


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose deaths, as keywords."""
    for option in (
        click.option("--kind", metavar="PATTERN", help="Only these kinds of death."),
        click.option("--machine", metavar="PATTERN", help="Only these machines."),
        click.option(
            "--kernel", metavar="PATTERN", help="Only these releases: '6.1.*'"
        ),
        time_option("--until", help="Only deaths before this time."),
        time_option("--since", help="Only deaths from this time on."),
    ):
        function = option(function)
    return function


def limits_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the limits of what examines a source, as *time_limit* and *memory_limit*."""
    for option in (
        click.option(
            "--max-memory",
            "memory_limit",
            default="2G",
            show_default=True,
            metavar="SIZE",
            callback=memory_of_option,
            help="End work on a source if it takes more memory.",
        ),
        click.option(
            "--max-time",
            "time_limit",
            type=click.FloatRange(1, 86400),
            default=120,
            show_default=True,
            metavar="SECONDS",
            help="End work on a source after this time; its row says so.",
        ),
    ):
        function = option(function)
    return function


@contextmanager
def open_catalogue(url: str) -> Iterator[Catalogue]:
    """
    Open a catalogue for the body of a ``with`` statement.

    :raises UnsupportedError: If a package is not installed.
    """
    try:
        from kmemdump.catalogue.place import Place
        from kmemdump.catalogue.store import Catalogue

        catalogue = Catalogue(Place(url))
        yield catalogue
    except ModuleNotFoundError as error:
        extra = _EXTRA.get(error.name or "", "catalogue")
        raise UnsupportedError(
            f"catalogue: the Python package {error.name} is missing\n"
            f"install it: {describe_extra(extra)}"
        ) from error


def check_catalogue(url: str) -> None:
    """
    Check that a catalogue can be opened or made there.

    :raises KmemdumpError: If it cannot.
    """
    with open_catalogue(url) as catalogue:
        catalogue.files()


def tell_newer(version: int | None) -> None:
    """Warn about rows that a newer kmemdump wrote."""
    if version is not None:
        print_message(
            f"warning: rows of version {version} are from a newer kmemdump; "
            "columns may mean something else"
        )
