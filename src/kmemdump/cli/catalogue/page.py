# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump catalogue page``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from kmemdump.cli.catalogue.options import (
    from_option,
    json_option,
    open_catalogue,
    tell_newer,
)
from kmemdump.cli.shared.options import path_option
from kmemdump.cli.shared.outputs import Output, check_output

__all__ = ["page"]


@click.command("page")
@from_option
@path_option(
    "-o",
    "--output",
    "folder",
    required=True,
    metavar="DIR",
    help="Folder for the pages; made for its owner alone if it is not there.",
)
@click.option(
    "--groups",
    type=click.IntRange(1),
    default=2000,
    show_default=True,
    metavar="N",
    help="Groups to show, at most; the largest are shown.",
)
@click.option(
    "--reports",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    metavar="N",
    help="Deaths of each group whose reports are copied, the latest ones.",
)
@click.option(
    "--force", is_flag=True, help="Replace an index.html that is no page of kmemdump."
)
@json_option
def page(
    place: str, folder: Path, groups: int, reports: int, force: bool, as_json: bool
) -> None:
    """
    Write pages to look at: DIR/index.html, a page for each group, and reports.

    \b
    kmemdump catalogue page --from /srv/deaths -o deaths; xdg-open deaths/index.html

    They need no server and no network. Pages that an earlier run wrote are replaced,
    and those not needed any more removed; other files in DIR stay.
    """
    check_output(folder / "index.html", force, None, Output.REPORT)
    with open_catalogue(place) as catalogue:
        from kmemdump.catalogue.pages import write_pages

        written = write_pages(catalogue, folder, groups=groups, reports=reports)
    tell_newer(written.newer_version)
    if as_json:
        record = {"groups": written.groups, "reports": written.reports}
        click.echo(json.dumps({"version": 1, **record}))
        return
    click.echo(
        f"{folder / 'index.html'}: {written.groups:,} groups, "
        f"{written.reports:,} reports"
    )
