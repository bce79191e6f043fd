# SPDX-License-Identifier: GPL-2.0-or-later
"""Mask text at equal length."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from kmemdump.redaction.policy import Action, Policy

__all__ = ["Masker"]

_DATA = re.compile("[A-Za-z0-9\x80-\xff]")
_MASK = "x"
_HOST = "host-names"
_SHORTEST = 2
"""Characters of a value that is masked wherever text stays."""


class Masker:
    """
    Masks text by a policy. Text is bytes as Latin-1, so that its length is theirs.

    :param is_symbol: Returns whether the kernel has a symbol.
    :param modules: Names of the loaded modules.
    """

    def __init__(
        self,
        policy: Policy,
        is_symbol: Callable[[str], bool] = lambda name: False,
        modules: Collection[str] = (),
    ) -> None:
        self.policy = policy
        self.is_symbol = is_symbol
        self._modules = frozenset(modules)
        self._values: set[str] = set()
        self._spread: re.Pattern[str] | None = None

    def add_value(self, kind: str, data: bytes) -> None:
        """Mask this value in text that stays, if the policy says so of its kind."""
        value = _text(data)
        forms = [value]
        if kind == _HOST:  # Programs shorten it, or write it in capitals.
            forms += [value.partition(".")[0], value.upper()]
            forms.append(forms[1].upper())
        for form in forms:
            self._add_value(kind, form)

    def _add_value(self, kind: str, value: str) -> None:
        if (
            kind in self.policy.spread
            and len(value) >= _SHORTEST
            and _DATA.search(value)
            and not self.is_public(value.lower())
            and value not in self._values
        ):
            self._values.add(value)
            self._spread = None

    def is_public(self, text: str) -> bool:
        """Return whether a whole string is the same on every machine."""
        return any(it.fullmatch(text) for it in self.policy.public)

    def mask(self, kind: str, data: bytes) -> bytes:
        """Return text of a kind as the policy wants it, at equal length."""
        text = _text(data)
        match self.policy.kinds.get(kind, Action.MASK):
            case Action.KEEP:
                text = self._without_values(text)
            case Action.PATTERNS:
                text = self._without_values(self._without_patterns(text))
            case Action.WORDS:
                text = self._only_words(text)
            case _:
                text = text if self.is_public(text) else _masked(text)
        return text.encode("latin-1")

    def mask_text(self, kind: str, text: str) -> str:
        """Mask text that is not in the kernel's memory."""
        data = text.encode("utf-8", "backslashreplace")
        return self.mask(kind, data).decode("utf-8", "replace")

    def _without_patterns(self, text: str) -> str:
        for pattern in self.policy.patterns.values():
            text = _replaced(pattern, text)
        return text

    def _without_values(self, text: str) -> str:
        if not self._values:
            return text
        if self._spread is None:
            longest_first = sorted(self._values, key=lambda it: (-len(it), it))
            values = "|".join(map(re.escape, longest_first))
            self._spread = re.compile(f"(?<![A-Za-z0-9])(?:{values})(?![A-Za-z0-9])")
        return _replaced(self._spread, text)

    def _only_words(self, text: str) -> str:
        kept = bytearray(len(text))
        for pattern in self.policy.words.values():
            for match in pattern.finditer(text):
                if self._is_known(match):
                    start, end = match.span()
                    kept[start:end] = b"\1" * (end - start)
        masked = _masked(text)
        pairs = zip(text, masked, kept, strict=True)
        return "".join(own if keep else other for own, other, keep in pairs)

    def _is_known(self, match: re.Match[str]) -> bool:
        groups = match.groupdict()
        symbol, module = groups.get("symbol"), groups.get("module")
        return (symbol is None or self.is_symbol(symbol)) and (
            module is None or module in self._modules
        )


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _masked(text: str) -> str:
    return _DATA.sub(_MASK, text)


def _replaced(pattern: re.Pattern[str], text: str) -> str:
    group = "data" if "data" in pattern.groupindex else 0

    def replace(match: re.Match[str]) -> str:
        start, end = match.span(group)
        if start < 0:  # The group took no part.
            start, end = match.span()
        at = match.start()
        whole = match.group()
        return whole[: start - at] + _masked(text[start:end]) + whole[end - at :]

    return pattern.sub(replace, text)
