# SPDX-License-Identifier: GPL-2.0-or-later
"""
Texts for which a regular expression may take long: what it repeats, repeated, and an
end that it does not match.
"""

import re
from collections.abc import Iterator, Sequence
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

__all__ = ["attacks"]

_LEAST = 32
"""Repeats of fewer take no time."""
_CLASSES = {
    codes.CATEGORY_DIGIT: "1",
    codes.CATEGORY_SPACE: " ",
    codes.CATEGORY_WORD: "a",
    codes.CATEGORY_NOT_SPACE: "a",
    codes.CATEGORY_NOT_DIGIT: "a",
    codes.CATEGORY_NOT_WORD: "-",
}
_ANY = "a 0.-"
_ENDS = ("", "\x01")
_REPEATS = (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT)


def attacks(pattern: re.Pattern[Any], size: int) -> set[str]:
    """Return texts of about *size* characters."""
    flags = pattern.flags
    if isinstance(pattern.pattern, bytes):
        flags &= ~re.UNICODE
    found = set()
    for before, body in _repeats(parser.parse(pattern.pattern, flags), ""):
        times = size // len(body)
        for end in _ENDS:
            found.add(before + body * times + end)
            found.add(body * times + end)
            found.add((before + body) * (size // len(before + body)) + end)
    return found


def _repeats(nodes: Sequence[Any], before: str) -> Iterator[tuple[str, str]]:
    """Yield what is repeated, and a text that comes before it."""
    for node in nodes:
        code, value = node
        if code in _REPEATS:
            if value[1] is codes.MAXREPEAT or value[1] >= _LEAST:
                yield from ((before, body) for body in _bodies(value[2]))
            yield from _repeats(value[2], before)
        elif code is codes.SUBPATTERN:
            yield from _repeats(value[3], before)
        elif code is codes.ATOMIC_GROUP:
            yield from _repeats(value, before)
        elif code is codes.BRANCH:
            for branch in value[1]:
                yield from _repeats(branch, before)
        before += _sample([node])


def _bodies(nodes: Sequence[Any]) -> Iterator[str]:
    yield _sample(nodes) or "a"
    if len(nodes) == 1:
        code, value = nodes[0]
        if code is codes.BRANCH:
            yield from (_sample(branch) or "a" for branch in value[1])
        elif code is codes.ANY or (code is codes.IN and _is_negated(value)):
            yield from _ANY
        elif code is codes.IN:
            yield from (_sample([(codes.IN, [item])]) for item in value)


def _is_negated(items: Sequence[Any]) -> bool:
    return items[0][0] is codes.NEGATE


def _sample(nodes: Sequence[Any]) -> str:
    """Return a text that the nodes match, or nearly so."""
    return "".join(_sample_of(code, value) for code, value in nodes)


def _sample_of(code: Any, value: Any) -> str:
    if code is codes.LITERAL:
        return chr(value)
    if code is codes.RANGE:
        return chr(value[0])
    if code is codes.CATEGORY:
        return str(_CLASSES[value])
    if code is codes.IN:
        return "a" if _is_negated(value) else _sample(value[:1])
    if code in (codes.ANY, codes.NOT_LITERAL):
        return "a"
    if code is codes.BRANCH:
        return _sample(value[1][0])
    if code is codes.SUBPATTERN:
        return _sample(value[3])
    if code is codes.ATOMIC_GROUP:
        return _sample(value)
    if code in _REPEATS:
        return _sample(value[2]) * int(value[0])
    return ""  # Places, and what must be ahead or behind.
