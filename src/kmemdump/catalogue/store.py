# SPDX-License-Identifier: GPL-2.0-or-later
"""
A catalogue: ``rows/``, small immutable Parquet files, and ``reports/``, their pages.

Files are named by what is in them, so two processes may add at a time: the same file
twice is one, and the same row in two files counts once. Each file has a content once.
Now and then small files are merged; a file is removed once another one has its rows.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pyarrow as pa

from kmemdump.catalogue.database import Database, asked, quoted
from kmemdump.catalogue.parquet import KEY, to_parquet, to_table
from kmemdump.catalogue.place import Place
from kmemdump.catalogue.row import VERSION, Row
from kmemdump.errors import TargetError
from kmemdump.text import shell_command

__all__ = ["MAX_PAGE", "Catalogue", "choose_files"]

MAX_PAGE = 64 << 20
"""Bytes of a report's page."""
_ROWS, _REPORTS = "rows", "reports"
_SUFFIX = ".parquet"
_ENOUGH = 16
"""Files that stay as they are."""
_CONTENT = re.compile("[0-9a-f]{64}")
_GROWTH = 4
"""A file is merged with smaller ones once they have this part of its size."""

_T = TypeVar("_T")


class Catalogue:
    """
    A catalogue in a place.

    Reading methods raise :exc:`TargetError`, and writing ones :exc:`OutputError`.
    """

    def __init__(self, place: Place) -> None:
        self.place = place

    def files(self) -> dict[str, int]:
        """Return the names of the files of rows, and their sizes in bytes."""
        found = self.place.list(_ROWS)
        return {
            f"{_ROWS}/{name}": size
            for name, size in found.items()
            if name.endswith(_SUFFIX) and not name.startswith(".")
        }

    def ask(self, ask: Callable[[Database], _T]) -> _T:
        """
        Return what *ask* finds in the rows; it may be called more than once.

        :raises TargetError: If there is no catalogue, or it cannot be read.
        """
        if not self.files():
            raise TargetError(
                f"{self.place.url}: no catalogue is there\n"
                f"make one: {_adding(self.place.url)}"
            )
        return asked(self.place, self.files, ask)

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows, of which each has another content."""
        if rows:
            self.add_table(to_table(rows))

    def add_table(self, table: pa.Table) -> None:
        """Add rows in the form of a table with the schema of a catalogue."""
        data = to_parquet(table)
        digest = hashlib.sha256(data).hexdigest()
        self.place.write(f"{_ROWS}/{digest[:32]}{_SUFFIX}", data)

    def add_page(self, content: str, page: bytes) -> None:
        """Keep the page of the report of a source that could be read."""
        name = _page_name(content)
        assert name is not None, content
        # Without a time, so that the same page is the same file.
        self.place.write(name, gzip.compress(page, 6, mtime=0))

    def page(self, content: str) -> bytes | None:
        """
        Return the page of a report; None if there is none.

        :raises TargetError: If it is damaged.
        """
        name = _page_name(content)
        packed = self.place.read(name, MAX_PAGE) if name else None
        if packed is None:
            return None
        unpack = zlib.decompressobj(wbits=31)
        try:
            page = unpack.decompress(packed, MAX_PAGE)
        except zlib.error as error:
            raise TargetError(f"{name}: {error}") from error
        return page

    def merge(self, everything: bool = False) -> int:
        """
        Merge small files; return how many.

        :param everything: Whether to make one file of all.
        """
        names = choose_files(self.files(), everything)
        if len(names) < 2:
            return 0

        def there() -> dict[str, int]:
            """Return those that another process has not merged meanwhile."""
            return {it: size for it, size in self.files().items() if it in names}

        # A newer version's file has columns that would be lost.
        newer = asked(self.place, there, Database.files_with_more)
        names = [name for name in names if name not in newer]
        if len(names) < 2:
            return 0
        with TemporaryDirectory(prefix="kmemdump-") as folder:
            path = Path(folder) / "merged"
            before = asked(self.place, there, lambda it: _write(it, path))
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            merged = f"{_ROWS}/{digest[:32]}{_SUFFIX}"
            self.place.put(merged, path)
        for name in before:
            if name != merged:
                self.place.remove(name)
        return len(before)


def _write(database: Database, path: Path) -> list[str]:
    """Write the newest rows of all files into one; return the files' names."""
    database.connection.execute(
        "COPY (SELECT * EXCLUDE (seen) FROM deaths "
        "ORDER BY signature NULLS FIRST, died, content) "
        f"TO {quoted(str(path))} (FORMAT parquet, COMPRESSION zstd, "
        f"KV_METADATA {{{quoted(KEY)}: '{VERSION}'}})"
    )
    return list(database.files)


def choose_files(files: Mapping[str, int], everything: bool = False) -> list[str]:
    """
    Return the files to merge: the smallest ones, so that each row moves seldom.

    :param files: Names, and sizes in bytes.
    """
    smallest_first = sorted(files, key=lambda name: (files[name], name))
    if everything:
        return smallest_first
    if len(files) <= _ENOUGH:
        return []
    total = 0
    chosen: list[str] = []
    for name in smallest_first:
        if len(chosen) >= 2 and files[name] > _GROWTH * total:
            break
        chosen.append(name)
        total += files[name]
    return chosen


def _page_name(content: str) -> str | None:
    if not _CONTENT.fullmatch(content):
        return None  # A row of somebody else: it names no file of ours.
    return f"{_REPORTS}/{content[:2]}/{content}.html.gz"


def _adding(url: str) -> str:
    return shell_command("kmemdump", "catalogue", "add", "SOURCE", "--to", url)
