# SPDX-License-Identifier: GPL-2.0-or-later
"""
A catalogue as pages in a folder: an index, one for each group, and reports.

They look like reports, whose style and script they share, and are as safe: see
:mod:`kmemdump.report.html`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from kmemdump.catalogue.activity import Activity, find_activity
from kmemdump.catalogue.database import Database
from kmemdump.catalogue.page_folder import PageFolder
from kmemdump.catalogue.questions import (
    Death,
    Group,
    Overview,
    find_groups,
    find_overview,
    find_unread,
    latest_deaths,
    tallies,
)
from kmemdump.catalogue.store import Catalogue
from kmemdump.errors import OutputError, TargetError
from kmemdump.text import printable
from kmemdump.version import VERSION

__all__ = ["Written", "write_pages"]

_GROUPS, _REPORTS = "groups", "reports"
_OURS = re.compile(r"[0-9a-f]{12}\.html|[0-9a-f]{64}\.html")
_DEATHS = 25
"""Deaths that the page of a group lists."""
_VALUES = 12
"""Kernels and machines that it lists."""
_UNREAD = 200


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    groups: int
    reports: int
    newer_version: int | None
    """See :meth:`Database.newer_version`."""


@dataclass(frozen=True, slots=True)
class _Contents:
    overview: Overview
    groups: Sequence[Group]
    activity: Activity | None
    deaths: dict[str, list[Death]]
    kernels: dict[str, list[tuple[str, int]]]
    machines: dict[str, list[tuple[str, int]]]
    unread: Sequence[Death]
    newer_version: int | None


def write_pages(
    catalogue: Catalogue, folder: Path, *, groups: int = 2000, reports: int = 5
) -> Written:
    """
    Write the pages; the index last, so that it links to what is there.

    :param groups: How many groups to show, the largest.
    :param reports: How many reports of each group to copy, the latest.
    :raises OutputError: If they cannot be written.
    """
    found = catalogue.ask(lambda database: _contents(database, groups))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {folder}: {error.strerror}") from error
    with (
        PageFolder(str(folder)) as site,
        site.folder(_GROUPS) as group_pages,
        site.folder(_REPORTS) as report_pages,
    ):
        return _write(catalogue, found, site, group_pages, report_pages, reports)


def _contents(database: Database, limit: int) -> _Contents:
    groups = find_groups(database, limit=limit)
    shown = [group.signature for group in groups]
    return _Contents(
        find_overview(database),
        groups,
        find_activity(database, shown),
        latest_deaths(database, _DEATHS, shown),
        tallies(database, "release", _VALUES, shown),
        tallies(database, "machine", _VALUES, shown),
        find_unread(database, _UNREAD),
        database.newer_version(),
    )


def _write(
    catalogue: Catalogue,
    found: _Contents,
    site: PageFolder,
    group_pages: PageFolder,
    report_pages: PageFolder,
    reports: int,
) -> Written:
    made_groups: set[str] = set()
    made_reports: set[str] = set()
    now = datetime.now().astimezone()
    environment = _environment()
    shared = {"now": now, "found": found, "version": VERSION}
    template = environment.get_template("group.html")
    for group in found.groups:
        deaths = found.deaths.get(group.signature, [])
        copied = set()
        for death in deaths[:reports]:
            name = f"{death.content}.html"
            if _is_ours(name) and _copy(catalogue, death, report_pages, name):
                copied.add(death.content)
                made_reports.add(name)
        page = template.render(shared, group=group, deaths=deaths, copied=copied)
        name = f"{group.id}.html"
        group_pages.put(name, page.encode())
        made_groups.add(name)
    index = environment.get_template("index.html").render(shared)
    site.put("index.html", index.encode())
    site.tidy()
    group_pages.tidy(lambda name: _is_ours(name) and name not in made_groups)
    report_pages.tidy(lambda name: _is_ours(name) and name not in made_reports)
    return Written(len(found.groups), len(made_reports), found.newer_version)


def _is_ours(name: str) -> bool:
    return _OURS.fullmatch(name) is not None


def _copy(catalogue: Catalogue, death: Death, folder: PageFolder, name: str) -> bool:
    if folder.has(name):
        return True  # A content has one report.
    try:
        page = catalogue.page(death.content)
    except TargetError:
        return False  # Damaged: the group's page shows no link.
    if page is None:
        return False
    folder.put(name, _fence() + page)
    return True


@cache
def _fence() -> bytes:
    """
    Return what stands before a page that another host may have put into the catalogue.

    A page may only forbid more after that: no script but that of a report runs, and
    nothing is loaded. One of another version of kmemdump loses its script.
    """
    script = files("kmemdump.report").joinpath("page", "page.js").read_text("utf-8")
    return (
        '<!DOCTYPE html>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"style-src 'unsafe-inline'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'\">\n"
    ).encode()


@cache
def _environment() -> Environment:
    shared = files("kmemdump.report").joinpath("page")
    own = files("kmemdump.catalogue").joinpath("site")
    names = ("index.html", "group.html", "base.html")
    pages = {name: own.joinpath(name).read_text("utf-8") for name in names}
    environment = Environment(
        autoescape=True,
        loader=DictLoader(pages),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    css = shared.joinpath("page.css").read_text("utf-8")
    environment.globals |= {
        "css": Markup(css + own.joinpath("site.css").read_text("utf-8")),
        "js": Markup(shared.joinpath("page.js").read_text("utf-8")),
        "bars": _bars,
    }
    environment.filters |= {
        "digest": _digest,
        "number": lambda value: f"{value:,}",
        "day": lambda time: f"{time:%Y-%m-%d}",
        "minute": lambda time: f"{time:%Y-%m-%d %H:%M}",
    }
    return environment


def _finalize(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _bars(counts: Sequence[int], height: float) -> list[tuple[int, float, float]]:
    """Return number, top and height of each bar; one death can be seen."""
    most = max(counts, default=0)
    found = []
    for number, count in enumerate(counts):
        if count:
            tall = max(height * count / most, height / 12)
            found.append((number, round(height - tall, 2), round(tall, 2)))
    return found
