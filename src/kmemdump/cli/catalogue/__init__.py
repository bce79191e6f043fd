# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump catalogue``: a file for what adds, one for what asks, one for the page."""

from __future__ import annotations

import click

from kmemdump.cli.catalogue.add import add, compact
from kmemdump.cli.catalogue.groups import list_groups, new, same_as, show
from kmemdump.cli.catalogue.page import page
from kmemdump.cli.catalogue.sql import sql

__all__ = ["command"]


@click.group("catalogue")
def command() -> None:
    """
    Keep many deaths as rows, and see which of them are one bug.

    \b
    kmemdump catalogue add /var/crash --to /srv/deaths
    kmemdump catalogue list --from /srv/deaths
    kmemdump catalogue new --since 7d --from /srv/deaths
    kmemdump catalogue page -o /srv/www/deaths --from /srv/deaths

    A catalogue is a folder, or a URL of fsspec, as s3://bucket/deaths. It has a row for
    each source, in Parquet files that DuckDB, ClickHouse, Spark and others read, and
    the page of its report. Deaths with the same signature are a group: one bug, most
    likely.
    """


for _verb in (add, list_groups, show, same_as, new, page, sql, compact):
    command.add_command(_verb)
