# SPDX-License-Identifier: GPL-2.0-or-later
"""
Policies: what happens to each kind of data, as TOML.

``policies/`` has those that come with kmemdump; the manual has the schema.
"""

from __future__ import annotations

import re
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.resources import files
from pathlib import Path
from typing import Any

from kmemdump.areas.contents import KINDS
from kmemdump.errors import FormatError, UsageError
from kmemdump.files import OpenFile

__all__ = ["POLICIES", "Action", "Policy", "load_policy", "parse_policy"]

POLICIES = ("share", "strict")
"""Names of the policies that come with kmemdump."""

_VERSION = 1
_MAX_BYTES = 64 << 10
_MAX_PATTERNS = 200
_MAX_PATTERN = 2000
_MAX_TEXT = 300
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class Action(Enum):
    """What happens to data of a kind."""

    KEEP = "keep"
    PATTERNS = "patterns"
    """It stays, but for what the patterns match."""
    WORDS = "words"
    """It is masked, but for what the words match."""
    MASK = "mask"
    """Letters and digits become ``x``."""
    ZERO = "zero"


_OF_TEXT = (Action.KEEP, Action.PATTERNS, Action.WORDS, Action.MASK)
_OF_NUMBERS = (Action.KEEP, Action.ZERO)
_NUMBERS = ("network-addresses", "user-ids")
_TEXTS = (
    "task-names",
    "kernel-thread-names",
    "host-names",
    "command-line",
    "log-text",
    "paths",
    "interface-names",
    "device-names",
    "module-names",
    "other-text",
    "vm-names",
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What happens to each kind of data."""

    name: str
    summary: str
    kinds: Mapping[str, Action]
    """Of the kinds about which a policy decides; the others always go."""
    spread: frozenset[str]
    """Kinds whose values are masked wherever text stays."""
    public: tuple[re.Pattern[str], ...]
    """Whole strings that are the same on every machine, and stay."""
    patterns: Mapping[str, re.Pattern[str]]
    """What is masked by :attr:`Action.PATTERNS`: group ``data``, or all of a match."""
    words: Mapping[str, re.Pattern[str]]
    """
    What stays by :attr:`Action.WORDS`. Group ``symbol`` has to be a symbol of the
    kernel, ``module`` the name of a loaded module.
    """


def load_policy(name: str) -> Policy:
    """
    Load a policy.

    :param name: One of :data:`POLICIES`, or the path of a TOML file.
    :raises UsageError: If it is neither.
    :raises KmemdumpError: If the file cannot be read, or is no policy.
    """
    if name in POLICIES:
        return _shipped(name)
    if not name.endswith(".toml"):
        raise UsageError(
            f"no policy {name!r}; there are {', '.join(POLICIES)}, and FILE.toml"
        )
    file = OpenFile(Path(name))
    try:
        if file.size > _MAX_BYTES:
            raise FormatError(
                file.name, f"{file.size} bytes, expected at most {_MAX_BYTES}"
            )
        return parse_policy(file.read(0, file.size), file.name)
    finally:
        file.close()


def _shipped(name: str) -> Policy:
    path = files("kmemdump.redaction") / "policies" / f"{name}.toml"
    return parse_policy(path.read_bytes(), f"policy {name}")


def parse_policy(data: bytes, source: str) -> Policy:
    """
    Parse a policy.

    :param source: Names the input, for messages.
    :raises FormatError: If it is none.
    """
    try:
        content = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(source, f"no TOML: {error}") from None
    table = _Table(content, source)
    version = table.take("version", int)
    if version != _VERSION:
        raise FormatError(f"{source}: version", f"is {version}, expected {_VERSION}")
    name = table.take("name", str)
    if not _NAME.fullmatch(name):
        raise FormatError(
            f"{source}: name",
            f"is {name[:40]!r}, expected up to 32 of a-z, 0-9, _ and -",
        )
    base = table.take("base", str, "")
    if base and base not in POLICIES:
        raise FormatError(
            f"{source}: base",
            f"is {base[:40]!r}, expected one of {', '.join(POLICIES)}",
        )
    if not base and name in POLICIES and source != f"policy {name}":
        raise FormatError(
            f"{source}: name", f"is {name!r}, which comes with kmemdump; take another"
        )
    start = _shipped(base) if base else None
    summary = table.take("summary", str, start.summary if start else "")[:_MAX_TEXT]
    kinds = _kinds(table.table("kinds"), start)
    text = table.table("text")
    spread = text.take("spread", list, None)
    public = text.take("public", list, [])
    text.end()
    patterns = table.table("patterns")
    words = table.table("words")
    table.end()
    return Policy(
        name=name,
        summary=summary,
        kinds=kinds,
        spread=_spread(spread, f"{source}: text.spread", start),
        public=(
            *(start.public if start else ()),
            *_public(public, f"{source}: text.public"),
        ),
        patterns={**(start.patterns if start else {}), **_compiled(patterns)},
        words={**(start.words if start else {}), **_compiled(words)},
    )


def _kinds(table: _Table, start: Policy | None) -> dict[str, Action]:
    found = dict(start.kinds) if start else {}
    for name, value in table.content.items():
        where = f"{table.where}.{name}"
        if name in KINDS and name not in (*_TEXTS, *_NUMBERS):
            raise FormatError(where, "no policy decides about it: see the manual")
        if name not in KINDS:
            known = ", ".join((*_TEXTS, *_NUMBERS))
            raise FormatError(where, f"no kind of data, expected one of {known}")
        allowed = _OF_NUMBERS if name in _NUMBERS else _OF_TEXT
        action = next((it for it in allowed if it.value == value), None)
        if action is None:
            expected = ", ".join(it.value for it in allowed)
            raise FormatError(where, f"is {value!r:.40}, expected one of {expected}")
        found[name] = action
    missing = [name for name in (*_TEXTS, *_NUMBERS) if name not in found]
    if missing:
        raise FormatError(
            table.where,
            f"says nothing about {', '.join(missing)}; say it, or name a base",
        )
    return found


def _spread(value: object, where: str, start: Policy | None) -> frozenset[str]:
    if value is None:
        return start.spread if start else frozenset()
    assert isinstance(value, list)
    for item in value:
        if item not in _TEXTS:
            raise FormatError(where, f"has {item!r:.40}, expected kinds of text")
    return frozenset(value)


def _public(value: list[object], where: str) -> list[re.Pattern[str]]:
    if len(value) > _MAX_PATTERNS:
        raise FormatError(where, f"{len(value)} entries, at most {_MAX_PATTERNS}")
    return [_pattern(item, f"{where}[{i}]", True) for i, item in enumerate(value)]


def _compiled(table: _Table) -> dict[str, re.Pattern[str]]:
    if len(table.content) > _MAX_PATTERNS:
        raise FormatError(
            table.where, f"{len(table.content)} entries, at most {_MAX_PATTERNS}"
        )
    return {
        name: _pattern(value, f"{table.where}.{name}")
        for name, value in table.content.items()
    }


def _pattern(value: object, where: str, empty: bool = False) -> re.Pattern[str]:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_PATTERN:
        raise FormatError(
            where, f"expected a regular expression of at most {_MAX_PATTERN} characters"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Of what Python will read differently.
            found = re.compile(value, re.ASCII)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        raise FormatError(where, f"no regular expression: {error}") from None
    if not empty and found.match("") is not None:
        raise FormatError(where, "matches an empty text, expected something to match")
    return found


class _Table:
    """A TOML table whose entries are taken one by one."""

    def __init__(self, content: dict[str, Any], where: str) -> None:
        self.content = dict(content)
        self.where = where

    def take(self, name: str, kind: type, *default: Any) -> Any:
        if name not in self.content:
            if default:
                return default[0]
            raise FormatError(f"{self.where}: {name}", "is missing")
        value = self.content.pop(name)
        if type(value) is not kind:
            words = {int: "a number", str: "a string", list: "a list"}[kind]
            raise FormatError(
                f"{self.where}: {name}", f"is {value!r:.40}, expected {words}"
            )
        return value

    def table(self, name: str) -> _Table:
        value = self.content.pop(name, {})
        if not isinstance(value, dict):
            raise FormatError(
                f"{self.where}: {name}", f"is {value!r:.40}, expected a table"
            )
        return _Table(value, f"{self.where}: {name}")

    def end(self) -> None:
        if self.content:
            name = next(iter(self.content))
            raise FormatError(f"{self.where}: {name[:40]}", "no such entry")
