# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump regions``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import click

from kmemdump.cli.shared.messages import print_message
from kmemdump.cli.shared.options import firmware_options
from kmemdump.collect.source import Options, read_registered
from kmemdump.errors import ExitCode
from kmemdump.firmware.kinfo_search import check_kinfo
from kmemdump.firmware.minidump_table import MinidumpTable
from kmemdump.firmware_dumps.assemble import FirmwareDump
from kmemdump.formats.kinfo import Kinfo
from kmemdump.text import plain_console, printable

__all__ = ["command"]

_Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Listing:
    """What is printed, as a table or as JSON."""

    kind: str
    """``minidump``, ``kinfo``, or ``dump`` for what firmware dumped."""
    facts: dict[str, object]
    rows: list[_Row]
    problems: Sequence[str]


@click.command("regions")
@click.argument("source")
@click.option(
    "--subsystem",
    type=click.IntRange(0, 1000),
    default=0,
    metavar="NUMBER",
    help="Processor whose regions to list; 0 (default) is Linux's.",
)
@firmware_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(source: str, subsystem: int, as_json: bool, options: Options) -> int:
    """
    List the regions registered with firmware, and those that it would refuse.

    \b
    kmemdump regions live
    kmemdump regions dump/
    kmemdump regions ram.img --memory-map 0x80000000

    SOURCE is a machine with a minidump table or a kinfo in its memory (a VM, a RAM
    image), a kinfo in a file of its own, or what firmware dumped: a folder of
    md_*.BIN files, a rawdump image.
    """
    listing = _list(source, subsystem, options)
    if as_json:
        whole = {
            "version": 1,
            "kind": listing.kind,
            **listing.facts,
            "regions": listing.rows,
            "problems": listing.problems,
        }
        click.echo(json.dumps(whole, indent=2))
    else:
        _print(listing)
    return ExitCode.INCOMPLETE if listing.problems else ExitCode.DONE


def _list(source: str, subsystem: int, options: Options) -> _Listing:
    found = read_registered(source, options, subsystem=subsystem)
    if isinstance(found, MinidumpTable):
        return _of_table(found)
    if isinstance(found, FirmwareDump):
        return _of_dump(found)
    return _of_kinfo(found.kinfo, found.address)


def _of_table(table: MinidumpTable) -> _Listing:
    toc, row = table.toc, table.subsystem
    facts: dict[str, object] = {"table": table.source}
    if toc is not None and row is not None:
        facts |= {
            "ready": toc.status != 0,
            "revision": toc.revision,
            "enabled": row.is_enabled,
            "encrypted": not row.is_plain,
        }
    rows: list[_Row] = [
        {
            "name": region.name,
            "number": region.sequence,
            "address": hex(region.address),
            "size": region.size,
            "valid": region.is_valid,
            "problems": list(problems),
        }
        for region, problems in zip(table.regions, table.row_problems, strict=True)
    ]
    return _Listing("minidump", facts, rows, table.problems)


def _of_dump(dump: FirmwareDump) -> _Listing:
    missing = {item.range.start for item in dump.missing}
    rows: list[_Row] = [
        {
            "name": item.name,
            "address": hex(item.range.start),
            "size": item.range.size,
            "virtual": None if item.virtual is None else hex(item.virtual),
            "complete": not any(
                item.range.start <= start < item.range.end for start in missing
            ),
        }
        for item in dump.regions
    ]
    return _Listing("dump", {"dump": dump.source}, rows, dump.warnings)


def _of_kinfo(kinfo: Kinfo, address: int | None) -> _Listing:
    facts: dict[str, object] = {} if address is None else {"kinfo": hex(address)}
    facts |= {
        "layout": kinfo.layout.value,
        "release": kinfo.release,
        "build_info": kinfo.build_info,
        "symbols": kinfo.num_syms,
        "checksum_ok": kinfo.checksum_ok,
    }
    rows: list[_Row] = [
        {"name": name, "address": hex(at) if at else None}
        for name, at in kinfo.addresses.items()
    ]
    return _Listing("kinfo", facts, rows, check_kinfo(kinfo))


def _print(listing: _Listing) -> None:
    from rich.table import Table as Lines

    console = plain_console()
    for name, value in listing.facts.items():
        if value != "":
            label = name.replace("_", " ") + ":"
            console.print(f"{label:<12} {_cell(value)}", soft_wrap=True)
    lines = Lines(box=None, header_style="bold", pad_edge=False)
    columns = [name for name in (listing.rows or [{}])[0] if name != "problems"]
    for column in columns:
        lines.add_column(
            column.upper(),
            justify="left" if column == "name" else "right",
            no_wrap=True,
        )
    for row in listing.rows:
        lines.add_row(*(_cell(row[column]) for column in columns))
    console.print(lines)
    for problem in listing.problems:
        print_message(problem)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else printable(str(value))
