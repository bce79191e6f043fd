# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said to a person beside the answer: on standard error, a line each."""

from __future__ import annotations

import click

from kmemdump.text import printable

__all__ = ["tell"]


def tell(words: str) -> None:
    """
    Say something on one line, so that a log has it whole.

    It may have the names of files in it, and what they hold.
    """
    line = "; ".join(words.splitlines())
    click.echo(f"kmemdump: {printable(line)}", err=True)
