# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump catalogue list``, ``new``, ``show`` and ``same-as``."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kmemdump.cli.catalogue.options import (
    filter_options,
    from_option,
    json_option,
    limits_options,
    open_catalogue,
    tell_newer,
    time_option,
)
from kmemdump.cli.shared.messages import print_message
from kmemdump.cli.shared.options import identity_option
from kmemdump.errors import ExitCode, TargetError, UsageError
from kmemdump.text import printable

if TYPE_CHECKING:
    from kmemdump.catalogue.questions import Death, Filter, Group, Overview
    from kmemdump.catalogue.row import Row
    from kmemdump.catalogue.store import Catalogue

__all__ = ["list_groups", "new", "same_as", "show"]

_limit_option = click.option(
    "--limit",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    metavar="N",
    help="Rows to print, at most.",
)
_NEAREST = 5
_VALUES = 10
"""Kernels and machines to name."""


@click.command("list")
@from_option
@filter_options
@_limit_option
@json_option
def list_groups(place: str, limit: int, as_json: bool, **chosen: Any) -> int:
    """
    List the groups of deaths, the largest first.

    \b
    kmemdump catalogue list --from /srv/deaths --since 7d --kernel '6.12.*'

    Times are those of deaths. The name in the first column is for 'show'.
    """
    from_filter = _filter(place, **chosen)
    return _list(place, from_filter, limit, as_json)


@click.command("new")
@from_option
@time_option("--since", required=True, help="The first death was then or later.")
@click.option(
    "--added", "by_added", is_flag=True, help="The first one was added then or later."
)
@click.option("--kernel", metavar="PATTERN", help="Only these releases: '6.1.*'")
@_limit_option
@json_option
def new(
    place: str,
    since: datetime,
    by_added: bool,
    kernel: str | None,
    limit: int,
    as_json: bool,
) -> int:
    """
    List the groups that are new: bugs that were not seen before.

    \b
    kmemdump catalogue new --since 24h --added --from /srv/deaths

    With --added, it finds also what died earlier and was added only now.
    """
    chosen = _filter(place, kernel=kernel, new_since=since, by_added=by_added)
    return _list(place, chosen, limit, as_json)


def _filter(place: str, **chosen: Any) -> Filter:
    with open_catalogue(place):
        from kmemdump.catalogue.questions import Filter

        return Filter(**chosen)


def _list(place: str, chosen: Filter, limit: int, as_json: bool) -> int:
    with open_catalogue(place) as catalogue:
        from kmemdump.catalogue.questions import find_groups, find_overview

        groups, overview, version = catalogue.ask(
            lambda it: (
                find_groups(it, chosen, limit + 1),
                find_overview(it),
                it.newer_version(),
            )
        )
    tell_newer(version)
    more, groups = len(groups) > limit, groups[:limit]
    if as_json:
        found = [_group_record(group) for group in groups]
        click.echo(json.dumps({"version": 1, "groups": found}, indent=2))
        return ExitCode.DONE
    _print_groups(groups)
    _print_overview(overview)
    if more:
        print_message(f"there are more groups than {limit}: see --limit")
    return ExitCode.DONE


def _print_groups(groups: Sequence[Group]) -> None:
    if not groups:
        return
    head = ("group", "deaths", "first", "last", "kernels", "machines")
    lines = [
        (
            group.id,
            f"{group.count:,}",
            f"{group.first:%Y-%m-%d %H:%M}",
            f"{group.last:%Y-%m-%d %H:%M}",
            f"{group.kernels:,}",
            f"{group.machines:,}",
        )
        for group in groups
    ]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    signatures = ["signature", *(printable(group.signature) for group in groups)]
    for line, signature in zip([head, *lines], signatures, strict=True):
        cells = [
            cell.rjust(width) if i in (1, 4, 5) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo("  ".join([*cells, signature]))


def _print_overview(overview: Overview) -> None:
    text = f"{overview.deaths:,} deaths in {overview.groups:,} groups"
    if overview.unread:
        text += f"; {overview.unread:,} sources have no report"
    print_message(text)


@click.command("show")
@click.argument("name", metavar="SIGNATURE")
@from_option
@_limit_option
@json_option
def show(name: str, place: str, limit: int, as_json: bool) -> int:
    """
    Show a group: SIGNATURE, or the beginning of its name in 'list'.

    \b
    kmemdump catalogue show 3f2a91 --from /srv/deaths
    """
    with open_catalogue(place) as catalogue:
        _show(catalogue, name, limit, as_json)
    return ExitCode.DONE


@click.command("same-as")
@click.argument("source", metavar="SOURCE")
@from_option
@limits_options
@identity_option
@_limit_option
@json_option
def same_as(
    source: str,
    place: str,
    time_limit: float,
    memory_limit: int,
    identity: tuple[Path, ...],
    limit: int,
    as_json: bool,
) -> int:
    """
    Show the group to which SOURCE belongs, which is not added.

    \b
    kmemdump catalogue same-as vm7.core --from /srv/deaths

    If there is none, the exit status is 1, and groups with the same function to blame
    are listed.
    """
    with open_catalogue(place) as catalogue:
        from kmemdump.catalogue.questions import nearest_groups

        row = _examine(source, time_limit, memory_limit, identity)
        signature = row.signature
        if signature is None:
            raise TargetError(f"{source}: {row.problem or 'shows no death'}")
        try:
            _show(catalogue, signature, limit, as_json)
            return ExitCode.DONE
        except UsageError:
            pass
        near = catalogue.ask(
            lambda it: nearest_groups(it, row.kind, row.function, _NEAREST)
        )
    if as_json:
        found = [_group_record(group) for group in near]
        record = {"version": 1, "signature": signature, "near": found}
        click.echo(json.dumps(record, indent=2))
    else:
        click.echo(f"no death with this signature: {printable(signature)}")
        if near:
            click.echo(f"\nalso in {printable(row.function or '?')}:")
            _print_groups(near)
    return ExitCode.INCOMPLETE


def _examine(name: str, seconds: float, memory: int, identity: Sequence[Path]) -> Row:
    from kmemdump.bounds.steps import Limits
    from kmemdump.catalogue.child import Child
    from kmemdump.catalogue.sources import find_sources

    sources = list(find_sources([name]))
    if len(sources) != 1:
        raise UsageError(f"{name}: {len(sources)} sources, expected one")
    limits = Limits(memory, seconds=seconds)
    with Child(limits, socket.gethostname(), identity) as child:
        examined = child.examine(sources[0])
    assert examined is not None
    return examined[0]


def _show(catalogue: Catalogue, name: str, limit: int, as_json: bool) -> None:
    from kmemdump.catalogue.questions import deaths_of, find_group, tallies

    def ask(it: Any) -> tuple[Group, list[Death], Any, Any]:
        group = find_group(it, name)
        signature = group.signature
        return (
            group,
            deaths_of(it, signature, limit),
            tallies(it, "release", _VALUES, [signature]).get(signature, []),
            tallies(it, "machine", _VALUES, [signature]).get(signature, []),
        )

    group, deaths, kernels, machines = catalogue.ask(ask)
    if as_json:
        record = {
            "version": 1,
            **_group_record(group),
            "by_kernel": dict(kernels),
            "by_machine": dict(machines),
            "latest": [_death_record(death) for death in deaths],
        }
        click.echo(json.dumps(record, indent=2))
        return
    click.echo(printable(group.signature))
    click.echo(f"  {printable(group.sentence)}")
    click.echo(
        f"  {group.count:,} deaths from {group.first:%Y-%m-%d %H:%M} "
        f"to {group.last:%Y-%m-%d %H:%M} UTC; group {group.id}"
    )
    for title, found, count in (
        ("kernels", kernels, group.kernels),
        ("machines", machines, group.machines),
    ):
        parts = [f"{printable(value)} ({number:,})" for value, number in found]
        if count > len(found):
            parts.append(f"{count - len(found):,} more")
        click.echo(f"  {title}: {', '.join(parts)}")
    click.echo("  latest:")
    for death in deaths:
        release = printable(death.release or "?")
        machine = printable(death.machine or "?")
        source = printable(death.source)
        click.echo(
            f"    {death.seen:%Y-%m-%d %H:%M:%S}  {machine}  {release}  {source}"
        )
    if group.count > len(deaths):
        click.echo(f"    {group.count - len(deaths):,} more: see --limit")


def _group_record(group: Group) -> dict[str, Any]:
    return {
        "group": group.id,
        "signature": group.signature,
        "kind": group.kind,
        "function": group.function,
        "module": group.module,
        "sentence": group.sentence,
        "deaths": group.count,
        "first": group.first.isoformat(),
        "last": group.last.isoformat(),
        "kernels": group.kernels,
        "machines": group.machines,
    }


def _death_record(death: Death) -> dict[str, Any]:
    return {
        "content": death.content,
        "source": death.source,
        "seen": death.seen.isoformat(),
        "release": death.release,
        "machine": death.machine,
        "sentence": death.sentence,
        "complete": death.complete,
    }
