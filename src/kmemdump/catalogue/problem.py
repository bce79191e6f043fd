# SPDX-License-Identifier: GPL-2.0-or-later
"""What came out of a source, also if nothing did."""

from __future__ import annotations

from datetime import UTC, datetime

from kmemdump.catalogue.content import Content
from kmemdump.catalogue.row import Row, unread_content
from kmemdump.catalogue.sources import Source

__all__ = ["Examined", "cleaned", "problem_row"]

Examined = tuple[Row, bytes | None]
"""A row, and the page of the report."""


def problem_row(
    source: Source, host: str, problem: str, content: Content | None = None
) -> Row:
    """Return the row of a source that could not be examined."""
    return cleaned(
        Row(
            content=content.hash if content else unread_content(source.name, host),
            source=source.name,
            added=datetime.now(UTC),
            added_by=host,
            size=content.size if content else source.size,
            modified=source.modified,
            problem="; ".join(problem.splitlines()) or "no reason given",
        )
    )


def cleaned(row: Row) -> Row:
    """Return a row whose texts are short and printable."""
    return Row.from_json(row.to_json(), row.source)
