# SPDX-License-Identifier: GPL-2.0-or-later
"""
The rows of a catalogue as a table of DuckDB: the newest row of each content.

A file has each content once (:mod:`~kmemdump.catalogue.store`), so only what several
files have in common is compared. That is little: the largest file has most rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import duckdb

from kmemdump.catalogue.place import Place
from kmemdump.catalogue.row import COLUMNS, UNREAD, VERSION
from kmemdump.errors import FormatError, TargetError, UsageError

__all__ = ["MEMORY", "Database", "asked", "quoted"]

MEMORY = 1 << 30
"""Bytes that DuckDB may take; what needs more goes through the disk."""
_TRIES = 5
"""Another process may merge files while they are read."""
_NO_FOLDERS = "hive_partitioning = false"
_TYPES = {
    "text": "VARCHAR",
    "integer": "BIGINT",
    "yes or no": "BOOLEAN",
    "time": "TIMESTAMP WITH TIME ZONE",
    "texts": "VARCHAR[]",
}
_OF_FILES = (duckdb.IOException, duckdb.InvalidInputException)
"""Errors of DuckDB for a file that is gone or damaged; some are of no special kind."""
_ADVICE = "remove the file that it names, and add its sources again"
_FIRST, _LAST = "TIMESTAMPTZ '1970-01-01 00:00Z'", "TIMESTAMPTZ '9000-01-01 00:00Z'"
"""Times that are in every calendar, with room for what is reckoned from them."""

_T = TypeVar("_T")


class Database:
    """
    A connection with the view ``deaths``: the columns of a row, and ``seen``, the time
    of the death or, if that is not known, of the source's last change.

    :param files: Names of the files, and their sizes in bytes.
    :raises FormatError: If a file is no part of a catalogue.
    """

    def __init__(self, place: Place, files: Mapping[str, int]) -> None:
        self.files = files
        self._place = place
        self._folder = tempfile.TemporaryDirectory(prefix="kmemdump-")
        self.connection = duckdb.connect()
        try:
            self._prepare(place, files)
        except BaseException:
            self.close()
            raise

    def _prepare(self, place: Place, files: Mapping[str, int]) -> None:
        run = self.connection.execute
        run(f"SET memory_limit = '{MEMORY >> 20}MiB'")
        run(f"SET temp_directory = {quoted(self._folder.name)}")
        run("SET TimeZone = 'UTC'")
        if not place.local:
            self.connection.register_filesystem(place.fs)
        largest_first = sorted(files, key=lambda name: (-files[name], name))
        paths = [place.url_of(name) for name in largest_first]
        self._select("base", paths[:1])
        if len(paths) > 1:
            self._select("others", paths[1:])
            run(
                "CREATE TEMP TABLE changed AS SELECT * FROM ("
                "FROM others UNION ALL FROM base SEMI JOIN others USING (content)) "
                "QUALIFY row_number() OVER "
                "(PARTITION BY content ORDER BY added DESC, version DESC) = 1"
            )
            newest = (
                "FROM base ANTI JOIN changed USING (content) UNION ALL FROM changed"
            )
        else:
            newest = "FROM base"
        run(f"CREATE TEMP VIEW newest AS {newest}")
        # Rows without a signature come first in a merged file: little is read.
        run(
            "CREATE TEMP TABLE superseded AS SELECT unread.content FROM newest unread "
            f"WHERE signature IS NULL AND starts_with(content, '{UNREAD}') AND EXISTS "
            "(FROM newest other WHERE other.source = unread.source "
            "AND other.added_by = unread.added_by AND other.added > unread.added)"
        )
        some = run("SELECT count(*) FROM superseded").fetchall()[0][0]
        without = " ANTI JOIN superseded USING (content)" if some else ""
        run(
            "CREATE TEMP VIEW deaths AS SELECT *, "
            f"coalesce({_past('died')}, {_past('modified')}, added) seen "
            f"FROM newest{without}"
        )

    def _select(self, view: str, paths: Sequence[str]) -> None:
        """Make a view of files, whichever version of the schema they have."""
        run = self.connection.execute
        if not paths:
            nothing = ", ".join(
                f"NULL::{_TYPES[column.kind]} AS {column.name}" for column in COLUMNS
            )
            run(f"CREATE TEMP VIEW {view} AS SELECT {nothing} WHERE false")
            return
        names = ", ".join(quoted(path) for path in paths)
        # A folder such as "kind=a" is no column.
        table = f"read_parquet([{names}], union_by_name = true, {_NO_FOLDERS})"
        there = self._types(table)
        problem = _problem(there)
        if problem:
            for path in paths:
                own = f"read_parquet({quoted(path)}, {_NO_FOLDERS})"
                its = _problem(self._types(own))
                if its:
                    raise FormatError(path, f"{its}\n{_ADVICE}")
            raise FormatError(f"one of {len(paths)} files", problem)
        columns = ", ".join(
            f"{column.name}::{_TYPES[column.kind]} AS {column.name}"
            if column.name in there
            else f"NULL::{_TYPES[column.kind]} AS {column.name}"
            for column in COLUMNS
        )
        # All else is reckoned from this time; a row without one is not ours.
        where = f"WHERE added BETWEEN {_FIRST} AND {_LAST}"
        run(f"CREATE TEMP VIEW {view} AS SELECT {columns} FROM {table} {where}")

    def _types(self, table: str) -> dict[str, str]:
        """Return the columns of files, and their types."""
        found = self.connection.execute(f"DESCRIBE FROM {table}").fetchall()
        return {name: kind for name, kind, *_ in found}

    def files_with_more(self) -> set[str]:
        """Return the files that have columns which this version does not know."""
        known = {column.name for column in COLUMNS}
        found = set()
        for name in self.files:
            path = quoted(self._place.url_of(name))
            if self._types(f"read_parquet({path}, {_NO_FOLDERS})").keys() - known:
                found.add(name)
        return found

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return what a question of ours finds."""
        found: list[tuple[Any, ...]] = self.connection.execute(sql, values).fetchall()
        return found

    def newer_version(self) -> int | None:
        """Return the version of the newest row's schema, if it is one to come."""
        version = self.rows("SELECT max(version) FROM newest")[0][0]
        return version if version is not None and version > VERSION else None

    def run(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """
        Run SQL of the user; return the names of its columns, and its rows.

        :raises UsageError: If it is wrong.
        """
        try:
            cursor = self.connection.execute(sql)
            if cursor is None:
                raise UsageError("SQL: nothing is asked")
            names = [it[0] for it in cursor.description or ()]
            return names, cursor.fetchall()
        except duckdb.Error as error:
            if isinstance(error, _OF_FILES) or type(error) is duckdb.Error:
                raise
            raise UsageError(f"SQL: {error}") from error

    def close(self) -> None:
        self.connection.close()
        self._folder.cleanup()


def _past(column: str) -> str:
    """Return SQL for a time, without one of a clock that is a day and more ahead."""
    return (
        f"CASE WHEN {column} BETWEEN {_FIRST} AND added + INTERVAL 1 DAY "
        f"THEN {column} END"
    )


def _problem(there: Mapping[str, str]) -> str | None:
    """Return why columns, with their types, are not those of a catalogue."""
    for column in COLUMNS:
        kind = there.get(column.name)
        if kind is None:
            if column.required:
                return f"no column {column.name}: not a catalogue of kmemdump"
        elif kind != _TYPES[column.kind]:
            return f"column {column.name} is {kind}, expected {_TYPES[column.kind]}"
    return None


def quoted(text: str) -> str:
    """Return a text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def asked(
    place: Place, files: Callable[[], Mapping[str, int]], ask: Callable[[Database], _T]
) -> _T:
    """
    Return what *ask* finds, which is called again if files vanish meanwhile.

    :param files: Returns the names of the files there are now.
    :raises TargetError: If a file cannot be read.
    """
    for left in reversed(range(_TRIES)):
        before = files()
        try:
            with _open(place, before) as database:
                return ask(database)
        except duckdb.OutOfMemoryException as error:
            raise TargetError(f"{place.url}: {_first_line(error)}") from error
        except duckdb.Error as error:
            if left and before.keys() - files().keys():
                continue
            raise TargetError(
                f"{place.url}: {_first_line(error)}\n{_ADVICE}"
            ) from error
    raise TargetError(f"{place.url}: its files change all the time")


def _first_line(error: duckdb.Error) -> str:
    return str(error).partition("\n")[0]


@contextmanager
def _open(place: Place, files: Mapping[str, int]) -> Iterator[Database]:
    database = Database(place, files)
    try:
        yield database
    finally:
        database.close()
