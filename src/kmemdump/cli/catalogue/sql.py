# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump catalogue sql``."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from typing import Any

import click

from kmemdump.cli.catalogue.options import from_option, json_option, open_catalogue
from kmemdump.errors import ExitCode
from kmemdump.text import printable

__all__ = ["sql"]


@click.command("sql")
@click.argument("query", metavar="QUERY")
@from_option
@json_option
def sql(query: str, place: str, as_json: bool) -> int:
    """
    Answer QUERY, in DuckDB's SQL, as CSV, or as JSON with an object per line.

    \b
    kmemdump catalogue sql "SELECT release, count(*) FROM deaths
        WHERE kind = 'hang' GROUP BY ALL ORDER BY 2 DESC" --from /srv/deaths

    The table 'deaths' has the columns of a catalogue, and 'seen': the time of the
    death, else of the source's last change.
    """
    with open_catalogue(place) as catalogue:
        from kmemdump.catalogue.database import Database

        def ask(database: Database) -> tuple[list[str], list[tuple[Any, ...]]]:
            return database.run(query)

        names, rows = catalogue.ask(ask)
    if as_json:
        for row in rows:
            values = dict(zip(names, row, strict=True))
            click.echo(json.dumps(values, default=_plain))
        return ExitCode.DONE
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(value) for value in row] for row in rows)
    click.echo(output.getvalue(), nl=False)
    return ExitCode.DONE


def _cell(value: object) -> str:
    return "" if value is None else printable(str(_plain(value)), keep="\n")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, int | float) else str(value)
