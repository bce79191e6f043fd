# SPDX-License-Identifier: GPL-2.0-or-later
"""
Rust's symbol names as in the source: the "v0" mangling (RFC 2603 of Rust).

Only paths are read, which stacks of kernels show; any other name stays as it is.
"""

from __future__ import annotations

import re

__all__ = ["source_name"]

_MAX_DEPTH = 32
_MAX_STEPS = 500
_IDENTIFIER = re.compile(r"(?:s[0-9A-Za-z]{0,16}_)?u?(\d{1,4})_?")
_NUMBER = re.compile(r"([0-9A-Za-z]{0,16})_")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CPP = re.compile(r"_Z(\d{1,3})([A-Za-z_]\w*)")


class _UnreadableError(Exception):
    """The name is not one of those that are read."""


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._steps = 0

    def path(self, depth: int = 0) -> str:
        self._steps += 1
        if depth > _MAX_DEPTH or self._steps > _MAX_STEPS:
            raise _UnreadableError
        kind = self._take()
        if kind == "C":
            return self._identifier()
        if kind == "N":
            self._take()
            outer = self.path(depth + 1)
            return f"{outer}::{self._identifier()}"
        if kind in "MX":
            self._disambiguator()
            self.path(depth + 1)
            name = self.path(depth + 1)
            if kind == "M":
                return f"<{name}>"
            return f"<{name} as {self.path(depth + 1)}>"
        if kind == "Y":
            name = self.path(depth + 1)
            return f"<{name} as {self.path(depth + 1)}>"
        if kind == "B":
            return self._earlier(depth)
        raise _UnreadableError

    def _earlier(self, depth: int) -> str:
        match = _NUMBER.match(self._text, self._at)
        if match is None:
            raise _UnreadableError
        number = 0
        for digit in match[1]:
            number = number * 62 + _DIGITS.index(digit)
        target = number + 1 if match[1] else 0
        here = match.end()
        if target >= self._at:
            raise _UnreadableError
        self._at = target
        name = self.path(depth + 1)
        self._at = here
        return name

    def _take(self) -> str:
        if self._at >= len(self._text):
            raise _UnreadableError
        self._at += 1
        return self._text[self._at - 1]

    def _disambiguator(self) -> None:
        if self._text[self._at : self._at + 1] == "s":
            match = _NUMBER.match(self._text, self._at + 1)
            if match is None:
                raise _UnreadableError
            self._at = match.end()

    def _identifier(self) -> str:
        match = _IDENTIFIER.match(self._text, self._at)
        if match is None:
            raise _UnreadableError
        end = match.end() + int(match[1])
        if end > len(self._text):
            raise _UnreadableError
        name = self._text[match.end() : end]
        self._at = end
        return name


def source_name(symbol: str) -> str:
    """Return the path of a Rust or C++ function, or the symbol if it is none."""
    if symbol.startswith("_R"):
        try:
            return _Reader(symbol[2:]).path()
        except _UnreadableError:
            return symbol
    match = _CPP.match(symbol)
    if match is not None and len(match[2]) >= int(match[1]):
        return match[2][: int(match[1])]
    return symbol
