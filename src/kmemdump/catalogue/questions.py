# SPDX-License-Identifier: GPL-2.0-or-later
"""What people ask a catalogue: which bugs, since when, where; is this one of them?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kmemdump.catalogue.database import Database
from kmemdump.catalogue.row import id_of_signature
from kmemdump.errors import FormatError, UsageError

__all__ = [
    "OF_GROUPS",
    "Death",
    "Filter",
    "Group",
    "Overview",
    "deaths_of",
    "find_group",
    "find_groups",
    "find_overview",
    "find_unread",
    "latest_deaths",
    "nearest_groups",
    "tallies",
]

_MIN_PREFIX = 4
"""Characters of a group's name that must be typed, at least."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deaths to count. A pattern is one of a shell (``6.1.*``)."""

    since: datetime | None = None
    until: datetime | None = None
    kernel: str | None = None
    machine: str | None = None
    kind: str | None = None
    new_since: datetime | None = None
    """Only groups whose first death was then or later."""
    by_added: bool = False
    """Whether *new_since* is about when the first one was added."""

    def where(self) -> tuple[str, list[Any]]:
        """Return the condition for rows, and its values."""
        parts, values = ["signature IS NOT NULL"], []
        for column, operator, value in (
            ("seen", ">=", self.since),
            ("seen", "<", self.until),
            ("release", "GLOB", self.kernel),
            ("machine", "GLOB", self.machine),
            ("kind", "GLOB", self.kind),
        ):
            if value is not None:
                parts.append(f"{column} {operator} ?")
                values.append(value)
        return " AND ".join(parts), values

    def having(self) -> tuple[str, list[Any]]:
        """Return the condition for groups, and its values."""
        if self.new_since is None:
            return "true", []
        column = "added" if self.by_added else "seen"
        return f"min({column}) >= ?", [self.new_since]


@dataclass(frozen=True, slots=True)
class Group:
    """Deaths with one signature."""

    signature: str
    kind: str
    sentence: str
    """Of the latest one."""
    function: str | None
    module: str | None
    count: int
    first: datetime
    last: datetime
    kernels: int
    machines: int
    id: str = field(init=False)
    """The group's short name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", id_of_signature(self.signature))


@dataclass(frozen=True, slots=True)
class Death:
    """One source."""

    content: str
    source: str
    seen: datetime
    release: str | None
    machine: str | None
    sentence: str | None
    complete: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class Overview:
    """A catalogue as a whole."""

    deaths: int
    groups: int
    unread: int
    """Sources without a report."""
    first: datetime | None
    last: datetime | None
    kernels: int
    machines: int


_GROUP = (
    "signature, max_by(coalesce(kind, ''), seen), "
    "max_by(coalesce(sentence, ''), seen), max_by(function, seen), "
    "max_by(module, seen), count(*) AS n, min(seen), max(seen), "
    "count(DISTINCT release), count(DISTINCT machine)"
)


def find_groups(
    database: Database, chosen: Filter = Filter(), limit: int | None = None
) -> list[Group]:
    """Return groups, the largest first."""
    where, values = chosen.where()
    having, more = chosen.having()
    rows = database.rows(
        f"SELECT {_GROUP} FROM deaths WHERE {where} GROUP BY signature "
        f"HAVING {having} ORDER BY n DESC, max(seen) DESC, signature "
        f"LIMIT {'ALL' if limit is None else int(limit)}",
        values + more,
    )
    return [_group(row) for row in rows]


def find_group(database: Database, name: str) -> Group:
    """
    Return a group.

    :param name: Its signature, or the beginning of its short name.
    :raises UsageError: If there is none, or several.
    """
    rows = database.rows(
        f"SELECT {_GROUP} FROM deaths WHERE signature = ? GROUP BY signature", [name]
    )
    if not rows:
        signatures = database.rows(
            "SELECT DISTINCT signature FROM deaths WHERE signature IS NOT NULL"
        )
        short = name.lower()
        found = [
            text
            for (text,) in signatures
            if len(short) >= _MIN_PREFIX and id_of_signature(text).startswith(short)
        ]
        if len(found) > 1:
            raise UsageError(f"{name}: {len(found)} groups begin with it: type more")
        if not found:
            raise UsageError(
                f"{name}: no such group, expected a signature or a name of 'list'"
            )
        return find_group(database, found[0])
    return _group(rows[0])


def nearest_groups(
    database: Database, kind: str | None, function: str | None, limit: int
) -> list[Group]:
    """Return groups with this function to blame, those of the same kind first."""
    rows = database.rows(
        f"SELECT {_GROUP} FROM deaths WHERE signature IS NOT NULL AND function = ? "
        "GROUP BY signature ORDER BY (any_value(kind) = ?) DESC, n DESC "
        f"LIMIT {int(limit)}",
        [function, kind],
    )
    return [_group(row) for row in rows]


def _group(row: Sequence[Any]) -> Group:
    signature, kind, sentence, function, module, count, *rest = row
    first, last, kernels, machines = rest
    return Group(
        signature,
        kind,
        sentence,
        function,
        module,
        count,
        _utc(first),
        _utc(last),
        kernels,
        machines,
    )


# Rows may be another program's, which has left out anything.
_DEATH = (
    "coalesce(content, ''), coalesce(source, ''), seen, release, machine, sentence, "
    "coalesce(complete, false), problem"
)
OF_GROUPS = "SEMI JOIN (SELECT unnest(?::VARCHAR[]) signature) USING (signature)"
"""Behind ``FROM deaths``: only those of groups, whose number nothing limits."""
_LATEST = "row_number() OVER (PARTITION BY signature ORDER BY seen DESC, content)"


def deaths_of(database: Database, signature: str, limit: int) -> list[Death]:
    """Return the latest deaths of a group, the latest first."""
    return _deaths(database, "signature = ?", [signature], limit)


def find_unread(database: Database, limit: int) -> list[Death]:
    """Return the sources without a report, those added last first."""
    return _deaths(database, "kind IS NULL", [], limit)


def _deaths(
    database: Database, where: str, values: Sequence[Any], limit: int
) -> list[Death]:
    rows = database.rows(
        f"SELECT {_DEATH} FROM deaths WHERE {where} "
        f"ORDER BY seen DESC, content LIMIT {int(limit)}",
        values,
    )
    return [_death(row) for row in rows]


def latest_deaths(
    database: Database, limit: int, signatures: Sequence[str]
) -> dict[str, list[Death]]:
    """Return the latest deaths of groups, by signature, the latest first."""
    found: dict[str, list[Death]] = {}
    for signature, *row in database.rows(
        f"SELECT signature, {_DEATH} FROM deaths {OF_GROUPS} "
        f"QUALIFY {_LATEST} <= {int(limit)} ORDER BY signature, seen DESC, content",
        [signatures],
    ):
        found.setdefault(signature, []).append(_death(row))
    return found


def _death(row: Sequence[Any]) -> Death:
    return Death(row[0], row[1], _utc(row[2]), *row[3:])


def tallies(
    database: Database, column: str, limit: int, signatures: Sequence[str]
) -> dict[str, list[tuple[str, int]]]:
    """
    Return the most frequent values of a column in groups, by signature.

    :param column: ``release`` or ``machine``.
    """
    assert column in ("release", "machine")
    found: dict[str, list[tuple[str, int]]] = {}
    for text, value, count in database.rows(
        f"SELECT signature, {column}, count(*) AS n FROM deaths {OF_GROUPS} "
        f"WHERE {column} IS NOT NULL GROUP BY 1, 2 QUALIFY row_number() OVER "
        f"(PARTITION BY signature ORDER BY n DESC, {column}) <= {int(limit)} "
        "ORDER BY n DESC, 2",
        [signatures],
    ):
        found.setdefault(text, []).append((value, count))
    return found


def find_overview(database: Database) -> Overview:
    """Return the numbers of a catalogue as a whole."""
    (row,) = database.rows(
        "SELECT count(signature), count(DISTINCT signature), "
        "count(*) FILTER (kind IS NULL), "
        "min(seen) FILTER (signature IS NOT NULL), "
        "max(seen) FILTER (signature IS NOT NULL), count(DISTINCT release), "
        "count(DISTINCT machine) FROM deaths"
    )
    deaths, groups, unread, first, last, kernels, machines = row
    return Overview(
        deaths,
        groups,
        unread,
        first and _utc(first),
        last and _utc(last),
        kernels,
        machines,
    )


def _utc(time: object) -> datetime:
    # DuckDB believes what a file says of its own times, and has others as text.
    if isinstance(time, datetime) and datetime.min < time.replace(tzinfo=None):
        return time.astimezone(UTC)
    raise FormatError("a row", f"time {time!r:.40}, expected one that a calendar has")
