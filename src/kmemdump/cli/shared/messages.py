# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages for people beside the answer: on standard error, a line each."""

from __future__ import annotations

import click

from kmemdump.text import printable

__all__ = ["print_message"]


def print_message(text: str) -> None:
    """
    Print a message on one line, so that a log has it whole.

    :param text: May hold names of files, and their contents.
    """
    line = "; ".join(text.splitlines())
    click.echo(f"kmemdump: {printable(line)}", err=True)
