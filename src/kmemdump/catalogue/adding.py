# SPDX-License-Identifier: GPL-2.0-or-later
"""Adds sources to a catalogue: each once, though others add at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from kmemdump.catalogue.known import KnownContents, changed_sources
from kmemdump.catalogue.problem import Examined
from kmemdump.catalogue.row import Row
from kmemdump.catalogue.sources import Source
from kmemdump.catalogue.store import Catalogue

__all__ = ["Added", "Runner", "add_sources"]

_BATCH = 256
"""Rows of a file, at most."""
_SECONDS = 5.0
"""After so long, what is there is written, lest it be lost with this process."""


class Runner(Protocol):
    """Examines sources, here or elsewhere."""

    def run(
        self, sources: Iterable[Source], known: KnownContents
    ) -> Iterator[Examined | None]:
        """Yield what each source says; None if its content is known."""


@dataclass(slots=True)
class Added:
    """What happened to the sources."""

    added: int = 0
    """Rows that were added."""
    failed: int = 0
    """Those of them without a report."""
    known: int = 0
    """Sources whose content was there already."""


def add_sources(
    catalogue: Catalogue,
    sources: Iterable[Source],
    runner: Runner,
    host: str,
    *,
    rows: Iterable[Row] = (),
    again: bool = False,
    show: Callable[[Row], None] = lambda _: None,
) -> Added:
    """
    Add sources.

    :param host: Name of this machine.
    :param rows: What needs no examination; added as it is.
    :param again: Whether to examine also what the catalogue has; the newest row counts.
    :param show: Called with each row that is added.
    :raises OutputError: If the catalogue cannot be written.
    """
    known = KnownContents(catalogue) if not again else KnownContents(None)
    done = Added()

    def changed() -> Iterator[Source]:
        for source in changed_sources(catalogue, sources, host):
            if source is None:
                done.known += 1
            else:
                yield source

    batch = _Batch(catalogue)
    try:
        for row in rows:
            if known.claim(row.content):
                batch.add(row)
                done.added += 1
            else:
                done.known += 1
        for result in runner.run(sources if again else changed(), known):
            if result is None:
                done.known += 1
                continue
            row, page = result
            if page is not None:
                # Before the row: a row with a report has its page.
                catalogue.add_page(row.content, page)
            else:
                done.failed += 1
            batch.add(row)
            done.added += 1
            show(row)
    finally:
        batch.write()
    catalogue.merge()
    return done


class _Batch:
    """Rows that are not yet written."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._rows: dict[str, Row] = {}
        self._since = time.monotonic()

    def add(self, row: Row) -> None:
        self._rows[row.content] = row
        if len(self._rows) >= _BATCH or time.monotonic() - self._since > _SECONDS:
            self.write()

    def write(self) -> None:
        rows, self._rows = list(self._rows.values()), {}
        self._since = time.monotonic()
        self._catalogue.add(rows)
