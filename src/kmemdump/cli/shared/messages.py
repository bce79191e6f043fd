# SPDX-License-Identifier: GPL-2.0-or-later
"""
Messages for people, apart from the answer: one line each on standard error.

Warnings of the library and of drgn are such messages, and so is progress.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import click

from kmemdump.progress import LOGGER, SHARE
from kmemdump.text import plain_console, printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.status import Status
    from rich.text import Text

__all__ = [
    "held_back_warnings",
    "print_line",
    "print_message",
    "shown_progress",
    "verbose_option",
]

_LOGGERS = ("kmemdump", "drgn")
_BAR = 30  # Columns.
_LONGEST = 4000
"""Most characters of a message: names in a hostile file may be of any length."""
_MOST = 20
"""Maximum of warnings to print; a hostile file could cause any number."""


def print_message(text: str) -> None:
    """
    Print a message on one line, so that a log keeps it whole.

    :param text: May hold names of files, and their contents.
    """
    line = printable("; ".join(text.splitlines()))
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    click.echo(f"kmemdump: {line}", err=True)


def print_line(text: str) -> None:
    """
    Print a line of an answer.

    :param text: May hold what a guest or a file calls itself.
    """
    click.echo(printable(text))


def verbose_option() -> click.Option:
    """Return ``-v``, which every verb has; some give it a meaning of their own."""
    return click.Option(
        ["-v", "--verbose"],
        is_flag=True,
        expose_value=False,
        callback=_enable_progress,
        help="Print each step, too.",
    )


def _enable_progress(
    context: click.Context, _parameter: click.Parameter, value: bool
) -> None:
    if not value:
        return
    printer = _ProgressPrinter()
    for logger in map(logging.getLogger, _LOGGERS):
        logger.setLevel(logging.INFO)
        logger.addHandler(printer)
        context.call_on_close(partial(logger.setLevel, logging.NOTSET))
        context.call_on_close(partial(logger.removeHandler, printer))


class _ProgressPrinter(logging.Handler):
    """Prints at once what is being done; warnings have another handler."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._start = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            spent = time.monotonic() - self._start
            line = " ".join(record.getMessage().split())
            print_message(f"{spent:7.2f} s: {line}")


class _WarningBuffer(logging.Handler):
    """Keeps each warning once, until it is printed."""

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
            print_message(f"warning: {line}")
        if self._more:
            print_message(f"warning: {self._more} more")


class _Spinner(logging.Handler):
    """Shows the current work and its progress, in a line that vanishes."""

    def __init__(self, status: Status) -> None:
        super().__init__(logging.DEBUG)
        self._status = status

    def emit(self, record: logging.LogRecord) -> None:
        from rich.text import Text

        if record.levelno < logging.WARNING:
            text = Text(f"{record.getMessage()} …")
            share = getattr(record, SHARE, None)
            self._status.update(text if share is None else _bar(text, share))


def _bar(text: Text, share: float) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    line = Table.grid(padding=(0, 1))
    line.add_row(text, ProgressBar(1.0, share, width=_BAR), f"{share:4.0%}")
    return line


@contextmanager
def shown_progress() -> Iterator[None]:
    """Show on a terminal the progress of the body, which prints nothing itself."""
    ours = logging.getLogger("kmemdump")
    if not sys.stderr.isatty() or ours.isEnabledFor(logging.INFO):
        yield
        return

    loud = {ours: logging.INFO, logging.getLogger(LOGGER): logging.DEBUG}
    with plain_console(stderr=True).status("opening …") as status:
        # Only ours: most messages of drgn mean nothing to a person here.
        spinner = _Spinner(status)
        ours.addHandler(spinner)
        for logger, level in loud.items():
            logger.setLevel(level)
        try:
            yield
        finally:
            for logger in loud:
                logger.setLevel(logging.NOTSET)
            ours.removeHandler(spinner)


@contextmanager
def held_back_warnings(*, progress: bool = False) -> Iterator[None]:
    """
    Print the warnings of the body when it has ended.

    If it raises, the warnings are dropped: its error is enough.

    :param progress: Whether to show progress, as :func:`shown_progress` does.
    """
    buffer = _WarningBuffer()
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(buffer)
    try:
        with shown_progress() if progress else nullcontext():
            yield
    finally:
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(buffer)
    buffer.print()
