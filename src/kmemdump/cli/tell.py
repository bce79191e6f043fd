# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said to a person beside the answer: on standard error, a line each."""

from __future__ import annotations

import click

__all__ = ["tell"]


def tell(words: str) -> None:
    """
    Say something on one line, so that a log has it whole.

    What a file is named, or holds, must not get at somebody's terminal: what cannot be
    printed is escaped.
    """
    line = "; ".join(words.splitlines())
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    click.echo(f"kmemdump: {plain}", err=True)
