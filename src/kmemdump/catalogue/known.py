# SPDX-License-Identifier: GPL-2.0-or-later
"""What a catalogue has already, in little memory."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa

from kmemdump.catalogue.database import Database
from kmemdump.catalogue.row import UNREAD, Row, as_text
from kmemdump.catalogue.sources import Source
from kmemdump.catalogue.store import Catalogue

__all__ = ["ContentSet", "KnownContents", "changed_sources", "without_known"]

_DIGITS = 16
"""Hexadecimal digits that are kept of each hash: 8 bytes, 80 MB of 10 million rows."""
_CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class ContentSet:
    """
    Contents, by their hashes.

    The first 64 bits of a hash stand for it: of 10 million contents and as many others,
    one is taken for known by mistake with a probability of 0.000005.
    """

    prefixes: array[int] = field(default_factory=lambda: array("Q"))
    """Sorted."""

    def __contains__(self, content: str) -> bool:
        prefix = _prefix(content)
        at = bisect_left(self.prefixes, prefix)
        return at < len(self.prefixes) and self.prefixes[at] == prefix


class KnownContents:
    """
    The contents that a catalogue has, and those that are being added.

    :param catalogue: None if nothing counts as known.
    """

    def __init__(self, catalogue: Catalogue | None) -> None:
        self.before = ContentSet()
        """Those that it had."""
        self._claimed: set[int] = set()
        self._lock = threading.Lock()
        if catalogue is not None and catalogue.files():
            self.before = ContentSet(catalogue.ask(_prefixes))

    def claim(self, content: str) -> bool:
        """Return whether a content is new, which it is once."""
        if content in self.before:
            return False
        prefix = _prefix(content)
        with self._lock:
            if prefix in self._claimed:
                return False
            self._claimed.add(prefix)
        return True


def _prefix(content: str) -> int:
    return int(content[:_DIGITS], 16)


def _prefixes(database: Database) -> array[int]:
    found: array[int] = array("Q")
    cursor = database.connection.execute(
        f"SELECT TRY_CAST('0x' || left(content, {_DIGITS}) AS UBIGINT) AS prefix "
        "FROM newest WHERE prefix IS NOT NULL "
        f"AND NOT starts_with(content, '{UNREAD}') ORDER BY 1"
    )
    while rows := cursor.fetchmany(100_000):
        found.extend(row[0] for row in rows)
    return found


def changed_sources(
    catalogue: Catalogue, sources: Iterable[Source], host: str
) -> Iterator[Source | None]:
    """
    Yield the sources that are new or have changed; None for each other one.

    A source has not changed if its size and the time of its last change are those that
    the catalogue has. It is not read.

    :param host: Name of this machine; another one's files may have the same names.
    """
    each = iter(sources)
    while chunk := list(islice(each, _CHUNK)):
        same = _unchanged(catalogue, chunk, host) if catalogue.files() else frozenset()
        for source in chunk:
            yield None if source in same else source


def without_known(
    catalogue: Catalogue, rows: Sequence[tuple[str, Row]], host: str
) -> list[Row]:
    """
    Leave out deaths of whose core image the catalogue has a row.

    :param rows: Paths, empty if there was no core image, and rows.
    """
    paths = [as_text(path) for path, _ in rows if path]
    known: set[str] = set()
    if paths and catalogue.files():
        found = catalogue.ask(
            lambda it: it.rows(
                "SELECT source FROM newest WHERE added_by = ? "
                "AND list_contains(?, source)",
                [host, paths],
            )
        )
        known = {source for (source,) in found}
    return [row for path, row in rows if as_text(path) not in known or not path]


def _unchanged(
    catalogue: Catalogue, sources: Sequence[Source], host: str
) -> frozenset[Source]:
    given = pa.table(
        {
            "number": pa.array(range(len(sources)), pa.int64()),
            "source": [as_text(source.name) for source in sources],
            "size": pa.array([source.size for source in sources], pa.int64()),
            "modified": pa.array(
                [source.modified for source in sources], pa.timestamp("us", "UTC")
            ),
            "host": pa.array(
                [host if source.local else None for source in sources], pa.string()
            ),
        }
    )

    def ask(database: Database) -> frozenset[Source]:
        database.connection.register("given", given)
        found = database.rows(
            "SELECT number FROM given SEMI JOIN newest ON given.source = newest.source "
            "AND given.size = newest.size AND given.modified = newest.modified "
            "AND coalesce(given.host, newest.added_by) = newest.added_by"
        )
        return frozenset(sources[number] for (number,) in found)

    return catalogue.ask(ask)
