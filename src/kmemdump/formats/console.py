# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a terminal showed, as lines of text: logs of serial consoles, and plain text.

A serial console carries escape sequences (ECMA-48), carriage returns of programs that
draw over their own line, and bytes that were damaged on the way.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from kmemdump.formats.logged_line import MAX_LINE

__all__ = ["decode_text", "screen_lines"]

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI, such as colours.
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # OSC and other strings.
    r"|\x1b[ -/]*[0-~]"
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|\x1b"
)
_BACKSPACE = re.compile(r"[^\x08]\x08")
_ERASED = re.compile(r"[\x00\x07\x0e\x0f\x7f\ufeff]")
_MAX_BACKSPACES = 200
_WIDE = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
"""What PowerShell writes if a log is redirected into a file."""


def decode_text(data: bytes) -> str:
    """Return bytes as text; those that are no UTF-8 are escaped, as in ``\\xff``."""
    for mark, encoding in _WIDE.items():
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "backslashreplace")
    return data.decode("utf-8", "backslashreplace")


def screen_lines(text: str) -> Iterator[tuple[int, str]]:
    """
    Yield what can be read in each line, with the line's number from 1.

    What a program overwrote in its line is a line of its own, with the same number.
    """
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        line = line[:MAX_LINE]
        if line.isprintable():
            yield number, line
            continue
        for part in _plain(line).split("\r"):
            if part or line in ("", "\r"):
                yield number, part


def _plain(line: str) -> str:
    line = _ESCAPES.sub("", line.rstrip("\r"))
    for _ in range(_MAX_BACKSPACES):
        if "\b" not in line:
            break
        line = _BACKSPACE.sub("", line).lstrip("\b")
    return _ERASED.sub("", line)
