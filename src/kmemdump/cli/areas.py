# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump areas``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.table import Table

from kmemdump.cli.shared.json_records import plan_record
from kmemdump.cli.shared.options import (
    SelectionOptions,
    TargetOptions,
    opened_target,
    parse_selection,
    selection_options,
    target_options,
)
from kmemdump.errors import ExitCode, UsageError
from kmemdump.formats.minidump import LINUX_ROWS
from kmemdump.text import plain_console, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kmemdump.marking.mark import Marking
    from kmemdump.marking.plan import Plan
    from kmemdump.memory.ranges import Range

__all__ = ["command"]


@click.command("areas")
@click.argument("target", required=False)
@click.option(
    "--backend",
    type=click.Choice(["minidump"]),
    help="Show what fits into this firmware's table, and its cost.",
)
@click.option(
    "--rows",
    type=click.IntRange(0, 100_000),
    metavar="NUMBER",
    help="Rows of the table; by default, the number that Linux uses.",
)
@selection_options
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    target: str | None,
    backend: str | None,
    rows: int | None,
    selected: SelectionOptions,
    reading: TargetOptions,
    as_json: bool,
) -> int:
    """
    List what can be marked; with TARGET, what each area costs there.

    \b
    kmemdump areas
    kmemdump areas qmp:vm.qmp
    kmemdump areas qmp:vm.qmp --backend minidump --rows 180

    Each area counts only memory that no area above it has counted. In a firmware's
    table, neighbouring ranges share a region; the memory between them counts as extra
    bytes. Areas are added by importance, or in the order of --area; an area that would
    cost too many extra bytes is left out.
    """
    from kmemdump.marking.capture import look

    if rows is not None and backend is None:
        raise UsageError("--rows needs --backend minidump")
    if backend is not None and target is None:
        raise UsageError("--backend needs a TARGET, of which it shows what fits")
    selection = parse_selection(selected)
    if target is None:
        _print_known(as_json)
        return ExitCode.DONE
    with opened_target(target, reading) as opened:
        marks = look(opened, selection).marking
        ranges = opened.memory.ranges
    if backend is not None:
        return _show_plan(marks, ranges, rows, as_json)
    if as_json:
        click.echo(json.dumps(_records(marks), indent=2))
    else:
        _print_marks(marks)
    return ExitCode.DONE if marks.complete else ExitCode.INCOMPLETE


def _show_plan(
    marks: Marking, ranges: Sequence[Range], rows: int | None, as_json: bool
) -> int:
    from kmemdump.marking.plan import DESCRIPTION, plan

    planned = plan(
        marks, max((LINUX_ROWS if rows is None else rows) - DESCRIPTION, 0), ranges
    )
    if as_json:
        click.echo(json.dumps(plan_record(planned), indent=2))
    else:
        _print_plan(planned)
    whole = marks.complete and not planned.left_out
    return ExitCode.DONE if whole else ExitCode.INCOMPLETE


def _print_plan(planned: Plan) -> None:
    record = plan_record(planned)
    table = Table(box=box.SIMPLE_HEAD, show_footer=True)
    table.add_column("area", "all", no_wrap=True)
    table.add_column("bytes", f"{record['bytes']:,}", justify="right", no_wrap=True)
    table.add_column(
        "extra bytes", f"{record['extra']:,}", justify="right", no_wrap=True
    )
    regions = f"{record['regions']} regions, room for {record['rows']}"
    table.add_column("fits", regions, overflow="fold")
    for area in record["areas"]:
        fits = "yes" if area["fits"] else "no"
        reason = f": {printable(area['reason'])}" if area["reason"] else ""
        table.add_row(
            area["name"], f"{area['bytes']:,}", f"{area['extra']:,}", fits + reason
        )
    plain_console().print(table)


def _print_known(as_json: bool) -> None:
    from kmemdump.areas import AREAS

    if as_json:
        known = [
            {
                "name": area.name,
                "summary": area.summary,
                "default": area.default,
                "questions": [question.text for question in area.questions],
                "variables": list(area.variables),
            }
            for area in AREAS
        ]
        click.echo(json.dumps({"version": 1, "areas": known}, indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("area", "what it keeps", "questions"):
        table.add_column(column, overflow="fold")
    for area in AREAS:
        name = area.name if area.default else f"{area.name} (on request)"
        asked = ", ".join(question.text for question in area.questions)
        table.add_row(name, area.summary, asked)
    plain_console().print(table)


def _records(marks: Marking) -> dict[str, Any]:
    return {
        "version": 1,
        "areas": [
            {
                "name": area.name,
                "regions": len(area.ranges),
                "bytes": sum(item.size for item in area.ranges),
                "seconds": round(area.seconds, 6),
                "complete": area.reason is None,
                "reason": area.reason,
                "packed": area.packed,
            }
            for area in marks.areas
        ],
    }


def _print_marks(marks: Marking) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_footer=True)
    records = _records(marks)["areas"]
    sums = {
        key: sum(record[key] for record in records)
        for key in ("regions", "bytes", "seconds")
    }
    table.add_column("area", "all", no_wrap=True)
    table.add_column("regions", str(sums["regions"]), justify="right", no_wrap=True)
    table.add_column("bytes", f"{sums['bytes']:,}", justify="right", no_wrap=True)
    table.add_column(
        "ms", f"{sums['seconds'] * 1e3:.0f}", justify="right", no_wrap=True
    )
    table.add_column("complete", overflow="fold")
    for record in records:
        table.add_row(
            record["name"],
            str(record["regions"]),
            f"{record['bytes']:,}",
            f"{record['seconds'] * 1e3:.0f}",
            "yes" if record["complete"] else printable(f"no: {record['reason']}"),
        )
    plain_console().print(table)
