# SPDX-License-Identifier: GPL-2.0-or-later
"""Text from outside that must not get at somebody's terminal."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """Escape what cannot be printed, as in ``\\x1b``."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
