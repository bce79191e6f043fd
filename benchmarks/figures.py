# SPDX-License-Identifier: GPL-2.0-or-later
"""Put measured figures into the README and the manual, so that nobody copies them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "PEERS",
    "RECORD",
    "fill",
    "fill_comparison",
    "fill_peers",
    "write_docs",
    "write_peers",
]

Rows = Sequence[Sequence[str]]
"""A table; the first row is its head."""
RECORD = "benchmarks.json"
"""The figures of the README, in the manual's folder."""
_TEXT = "benchmarks.txt"
PEERS = "peers.json"
"""Those of what others leave."""
_COMPARISON = "comparison.rst"
_TASKS = 200
"""Of the VM in the README."""

_AFTER_DEATH = {
    "`watch`: the first file": "kmemdump, marked beforehand",
    "`watch`: the final file": "the same, and looked at again",
    "`capture`, without a watch": "kmemdump capture, not marked",
    "QEMU `dump-guest-memory`, ELF": "QEMU dump-guest-memory, elf",
    "QEMU `dump-guest-memory`, kdump-zlib": "QEMU dump-guest-memory, kdump-zlib",
    "to compare: as many bytes, synced": "the same bytes, written and synced",
}
_VMLINUX = "vmlinux of that build"
_TO_OPEN = {
    "kmemdump, core image, first time": (
        "kmemdump ask, core image, no debug info, first time",
        "nothing else",
    ),
    "the same, again": (
        "kmemdump ask, core image, no debug info, again",
        "nothing else",
    ),
    "drgn, full dump": ("drgn, full dump, vmlinux", _VMLINUX),
    "drgn, the VM through QMP": ("drgn, the VM through QMP, vmlinux", _VMLINUX),
    "crash, full dump": ("crash, full dump, vmlinux", _VMLINUX),
}


def fill(text: str, record: Mapping[str, Any]) -> str:
    """
    Return a text in Markdown with its tables of figures made anew.

    :param record: What ``python -m benchmarks --json`` writes.
    :raises KeyError: If a figure was not measured.
    :raises ValueError: If *text* has no place for a table.
    """
    for name, rows in _tables(record):
        place, end = f"<!-- figures: {name} -->\n", "<!-- end of figures -->"
        text = _put(text, place, end, _markdown_table(rows), name)
    return text


def fill_comparison(text: str, record: Mapping[str, Any]) -> str:
    """Return a text in reStructuredText with the same tables: :func:`fill`."""
    for name, rows in _tables(record):
        literal = [[cell.replace("`", "``") for cell in row] for row in rows]
        text = _put_simple(text, _simple_table(literal), name)
    return text


def _tables(record: Mapping[str, Any]) -> Iterator[tuple[str, Rows]]:
    [scene] = [it for it in record["scenes"] if it["plan"]["tasks"] == _TASKS]
    yield "after the death", _after_death(_by_name(scene["dumps"]))
    yield "to open it", _to_open(_by_name(scene["answers"]["sys"]))


def fill_peers(text: str, record: Mapping[str, Any]) -> str:
    """
    Return a text in reStructuredText with its tables of other tools made anew.

    :param record: What ``python -m benchmarks --peers --json`` writes.
    :raises ValueError: If *text* has no place for a table.
    """
    for name, table in (
        ("peers", _left(record)),
        ("summaries", _said(record)),
    ):
        text = _put_simple(text, table, name)
    return text


def _put_simple(text: str, table: str, name: str) -> str:
    return _put(text, f".. figures: {name}\n\n", "\n.. end of figures", table, name)


def _put(text: str, place: str, end: str, table: str, name: str) -> str:
    head, _, rest = text.partition(place)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"no place for the figures {name!r}")
    return f"{head}{place}{table}{end}{tail}"


def _left(record: Mapping[str, Any]) -> str:
    rows = [("RAM", "", "to a file", "of it copying", "size", "set aside")]
    for machine in record["machines"]:
        for it in machine["peers"]:
            copying = "" if it["copying"] is None else _seconds(it["copying"])
            size = f"{it['size'] / 1e6:,.{1 if it['size'] > 1e6 else 2}f} MB"
            least = (_memory(machine), it["name"], _seconds(it["seconds"]), copying)
            rows.append((*least, size, f"{it['reserved'] >> 20} MiB"))
    kernel, load = record["machines"][0]["release"], record["load"]
    end = f"\nThe kernel is Debian's {kernel}; the host's load was {load:.1f} before.\n"
    return _simple_table(rows) + end


def _said(record: Mapping[str, Any]) -> str:
    rows = [("RAM", "what is left", "program", "time", "CPU time")]
    for machine in record["machines"]:
        for it in machine["summaries"]:
            cost = it["cost"]
            times = (_seconds(cost["wall"]), _seconds(cost["cpu"]))
            if cost["problem"]:
                times = (cost["problem"].partition(":")[0], "")
            rows.append((_memory(machine), it["of"], it["name"], *times))
    return _simple_table(rows)


def _memory(machine: Mapping[str, Any]) -> str:
    return f"{machine['memory'] / 1024:.0f} GiB"


def _simple_table(rows: Rows) -> str:
    """Return a table of reStructuredText."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * max(width, 2) for width in widths)
    # An empty first cell would continue the row above; none is empty here.
    lines = [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule]) + "\n"


def _by_name(figures: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {figure["name"]: figure for figure in figures}


def _markdown_table(rows: Rows) -> str:
    head, *others = rows
    columns = list(zip(*others, strict=True))
    rule = ["--:" if column[-1][:1].isdigit() else "---" for column in columns]
    lines = [f"| {' | '.join(row)} |" for row in (head, *others)]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]]) + "\n"


def _after_death(figures: Mapping[str, Any]) -> Rows:
    rows = [("After the VM died", "time until the file is whole", "CPU time", "size")]
    for name, measured in _AFTER_DEATH.items():
        cost, size = figures[measured]["cost"], figures[measured]["size"]
        cpu = _seconds(cost["cpu"]) if cost["cpu"] else ""
        rows.append((name, _seconds(cost["wall"]), cpu, f"{size / 1e6:,.0f} MB"))
    return rows


def _to_open(figures: Mapping[str, Any]) -> Rows:
    rows = [("To open it and get the answer to `sys`", "time", "CPU time", "needs")]
    for name, (measured, needs) in _TO_OPEN.items():
        cost = figures[measured]["cost"]
        rows.append((name, _seconds(cost["wall"]), _seconds(cost["cpu"]), needs))
    return rows


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value:.2f} s"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def write_peers(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the figures of other tools into the manual in a folder."""
    page = folder / _COMPARISON
    filled = fill_peers(page.read_text(), record)
    _write_record(folder / PEERS, record)
    page.write_text(filled)


def write_docs(folder: Path, record: Mapping[str, Any], text: str) -> None:
    """
    Write the figures into the README beside the manual's folder, and into the manual.

    :param text: The tables as they were printed.
    """
    readme, page = folder.parent / "README.md", folder / _COMPARISON
    filled = fill(readme.read_text(), record)
    compared = fill_comparison(page.read_text(), record)
    _write_record(folder / RECORD, record)
    (folder / _TEXT).write_text(text)
    readme.write_text(filled)
    page.write_text(compared)


def _write_record(path: Path, record: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(_without_output(record), indent=2) + "\n")


def _without_output(record: Any) -> Any:
    """Leave out what programs printed: nobody needs it, and it names people's files."""
    if isinstance(record, Mapping):
        kept = (it for it in record.items() if it[0] != "output")
        return {key: _without_output(value) for key, value in kept}
    if isinstance(record, list | tuple):
        return [_without_output(it) for it in record]
    return record
