# SPDX-License-Identifier: GPL-2.0-or-later
"""Warnings of the library and of drgn, as lines for a person."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.status import Status

__all__ = ["held_back_warnings", "verbose_option"]

_LOGGERS = ("kmemdump", "drgn")
_MOST = 20
"""Warnings that are printed; a hostile file could cause any number."""


def verbose_option() -> click.Option:
    """Return ``-v``, which every verb has; some give it a meaning of their own."""
    return click.Option(
        ["-v", "--verbose"],
        is_flag=True,
        expose_value=False,
        callback=_tell_all,
        help="Tell what is going on, too.",
    )


def _tell_all(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value:
        return
    teller = _Teller()
    for logger in map(logging.getLogger, _LOGGERS):
        logger.setLevel(logging.INFO)
        logger.addHandler(teller)
        context.call_on_close(partial(logger.setLevel, logging.NOTSET))
        context.call_on_close(partial(logger.removeHandler, teller))


class _Teller(logging.Handler):
    """Prints what is going on at once; warnings have another handler."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._start = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            spent = time.monotonic() - self._start
            line = " ".join(record.getMessage().split())
            click.echo(f"kmemdump: {spent:7.2f} s: {line}", err=True)


class _Holder(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []
        self._more = 0

    def emit(self, record: logging.LogRecord) -> None:
        line = " ".join(record.getMessage().split())
        if line in self._lines:
            return
        if len(self._lines) < _MOST:
            self._lines.append(line)
        else:
            self._more += 1

    def print(self) -> None:
        for line in self._lines:
            click.echo(f"kmemdump: warning: {line}", err=True)
        if self._more:
            click.echo(f"kmemdump: warning: {self._more} more", err=True)


class _Spinner(logging.Handler):
    """Shows what is done now, in a line that vanishes."""

    def __init__(self, status: Status) -> None:
        super().__init__(logging.INFO)
        self._status = status

    def emit(self, record: logging.LogRecord) -> None:
        from rich.text import Text

        if record.levelno < logging.WARNING:
            self._status.update(Text(f"{record.getMessage()} …"))


@contextmanager
def held_back_warnings(*, progress: bool = False) -> Iterator[None]:
    """
    Print the warnings of the body when it has ended.

    If it raises, its error is all that there is to say.

    :param progress: Whether to show on a terminal what goes on; the body then
        prints nothing itself.
    """
    holder = _Holder()
    handlers: list[logging.Handler] = [holder]
    verbose = logging.getLogger("kmemdump").isEnabledFor(logging.INFO)
    with ExitStack() as shown:
        if progress and sys.stderr.isatty() and not verbose:
            from rich.console import Console

            console = Console(stderr=True)
            # Only ours: drgn has much to say that means nothing to a person here.
            shown.callback(logging.getLogger("kmemdump").setLevel, logging.NOTSET)
            logging.getLogger("kmemdump").setLevel(logging.INFO)
            status = shown.enter_context(console.status("opening …"))
            handlers.append(_Spinner(status))
        with _handled(handlers):
            yield
    holder.print()


@contextmanager
def _handled(handlers: Sequence[logging.Handler]) -> Iterator[None]:
    for name in _LOGGERS:
        for handler in handlers:
            logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in _LOGGERS:
            for handler in handlers:
                logging.getLogger(name).removeHandler(handler)
