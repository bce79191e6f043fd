# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump catalogue add`` and ``compact``."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from kmemdump.cli.catalogue.options import (
    from_option,
    json_option,
    limits_options,
    open_catalogue,
)
from kmemdump.cli.shared.messages import print_message
from kmemdump.cli.shared.options import identity_option
from kmemdump.errors import ExitCode, UsageError
from kmemdump.text import printable

if TYPE_CHECKING:
    from kmemdump.catalogue.adding import Runner
    from kmemdump.catalogue.row import Row

__all__ = ["add", "compact"]


@click.command("add")
@click.argument("sources", metavar="SOURCE…", nargs=-1)
@click.option(
    "--to",
    "place",
    required=True,
    metavar="PLACE",
    help="The catalogue: a folder, or a URL of fsspec; made if it is not there.",
)
@click.option(
    "--events",
    type=click.File("rb"),
    metavar="FILE",
    help="Add the deaths in the output of 'watch --json'; - is standard input.",
)
@click.option(
    "--again",
    is_flag=True,
    help="Examine what is there already, too; the newest row of a source counts.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Sources to examine at a time; by default, one for each CPU.",
)
@limits_options
@identity_option
@click.option(
    "--scheduler",
    metavar="tcp://HOST:PORT",
    help="Examine the sources on the workers of this Dask scheduler.",
)
@json_option
def add(
    sources: Sequence[str],
    place: str,
    events: BinaryIO | None,
    again: bool,
    jobs: int | None,
    time_limit: float,
    memory_limit: int,
    identity: tuple[Path, ...],
    scheduler: str | None,
    as_json: bool,
) -> int:
    """
    Add each SOURCE: a core image, a dump, a log, or a folder or pattern of them.

    \b
    kmemdump catalogue add /var/crash '/srv/*/cores/*.core' --to /srv/deaths
    kmemdump catalogue add s3://dumps/2026/ --to s3://deaths/all --jobs 16
    kmemdump catalogue add /nfs/crash --to /nfs/deaths --scheduler tcp://head:8786
    kmemdump watch … --json | kmemdump catalogue add --events - --to /srv/deaths

    A source that is there already, whatever its name, is not added twice, and one whose
    size and time did not change is not even read. Several 'add' may run at a time. A
    source that is damaged, or hangs, has a row that says so; the exit status is then 1,
    as it is for a path that is not there.

    A sealed core image is examined with --identity; without it, its row has what is
    readable without a key, and --again adds the rest later. Rows and pages in the
    catalogue are not sealed.
    """
    if not sources and events is None:
        raise UsageError("catalogue add: no SOURCE, expected a file, folder or URL")
    # The workers of a scheduler may have what this machine has not.
    is_here = scheduler is None
    gone = _report_missing(sources) if is_here else []
    sources = [source for source in sources if source not in gone]
    if gone and not sources and events is None:
        return ExitCode.UNREADABLE
    with open_catalogue(place) as catalogue:
        from kmemdump.bounds.steps import Limits
        from kmemdump.catalogue.adding import add_sources
        from kmemdump.catalogue.events import MAX_LINE, read_events
        from kmemdump.catalogue.known import without_known
        from kmemdump.catalogue.sources import Source, find_sources

        host = socket.gethostname()
        limits = Limits(memory_limit, seconds=time_limit)
        runner: Runner
        if scheduler is not None:
            from kmemdump.catalogue.cluster import ClusterRunner

            if identity:
                raise UsageError(
                    "--identity: workers of a scheduler have no private keys; leave "
                    "out --scheduler"
                )
            runner = ClusterRunner(scheduler, limits, host)
        else:
            from kmemdump.catalogue.local import LocalRunner

            count = jobs or len(os.sched_getaffinity(0))
            runner = LocalRunner(count, limits, host, identity)
        bare: list[Row] = []
        named: list[Source] = []
        if events is not None:
            named, found = read_events(
                iter(lambda: events.readline(MAX_LINE + 1), b""),
                host,
                lambda core: is_here and not os.path.lexists(core),
            )
            bare = without_known(catalogue, found, host)
        done = add_sources(
            catalogue,
            (source for part in (named, find_sources(sources)) for source in part),
            runner,
            host,
            rows=bare,
            again=again,
            show=_show_problem,
        )
    if as_json:
        click.echo(json.dumps({"version": 1, **asdict(done)}))
    else:
        click.echo(
            f"{place}: {done.added} added, {done.known} known already"
            + (f"; {done.failed} of those added have no report" if done.failed else "")
        )
    return ExitCode.INCOMPLETE if done.failed or gone else ExitCode.DONE


def _report_missing(sources: Sequence[str]) -> list[str]:
    from kmemdump.catalogue.sources import find_missing

    missing = find_missing(sources)
    for text in missing:
        print_message(f"{text}: {os.strerror(errno.ENOENT)}")
    return missing


def _show_problem(row: Row) -> None:
    if row.kind is None and row.problem is not None:
        text = row.problem
        where = "" if text.startswith(row.source) else f"{row.source}: "
        print_message(f"{where}{printable(text)}")


@click.command("compact")
@from_option
@json_option
def compact(place: str, as_json: bool) -> None:
    """
    Make one file of all rows, which is what questions read fastest.

    'add' merges small files now and then by itself.
    """
    with open_catalogue(place) as catalogue:
        count = catalogue.merge(everything=True)
    if as_json:
        click.echo(json.dumps({"version": 1, "merged": count}))
        return
    click.echo(f"{place}: {count} files merged" if count else f"{place}: is one file")
