# SPDX-License-Identifier: GPL-2.0-or-later
"""Put measured figures into the README and the manual, so that nobody copies them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["RECORD", "fill", "write_docs"]

RECORD = "benchmarks.json"
"""The figures of the README, in the manual's folder."""
_TEXT = "benchmarks.txt"
_TASKS = 200
"""Of the VM in the README."""

_AFTER_DEATH = {
    "kmemdump, marked beforehand": "kmemdump, marked beforehand",
    "the same, after the second look": "the same, and looked at again",
    "the same bytes, written and synced": "the same bytes, written and synced",
    "kmemdump, not marked, whole process": "kmemdump capture, not marked",
    "QEMU `dump-guest-memory`, ELF": "QEMU dump-guest-memory, elf",
    "QEMU `dump-guest-memory`, kdump-zlib": "QEMU dump-guest-memory, kdump-zlib",
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
    [scene] = [it for it in record["scenes"] if it["plan"]["tasks"] == _TASKS]
    for name, table in (
        ("after the death", _after_death(_by_name(scene["dumps"]))),
        ("to open it", _to_open(_by_name(scene["answers"]["sys"]))),
    ):
        head, place, rest = text.partition(f"<!-- figures: {name} -->\n")
        _, end, tail = rest.partition("<!-- end of figures -->")
        if not end:
            raise ValueError(f"no place for the figures {name!r}")
        text = f"{head}{place}{table}{end}{tail}"
    return text


def _by_name(figures: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {figure["name"]: figure for figure in figures}


def _after_death(figures: Mapping[str, Any]) -> str:
    lines = [
        "| After the VM died | to a named file | CPU time | size |",
        "|---|--:|--:|--:|",
    ]
    for name, measured in _AFTER_DEATH.items():
        cost, size = figures[measured]["cost"], figures[measured]["size"]
        cpu = _seconds(cost["cpu"]) if cost["cpu"] else ""
        lines.append(
            f"| {name} | {_seconds(cost['wall'])} | {cpu} | {size / 1e6:,.0f} MB |"
        )
    return "\n".join(lines) + "\n"


def _to_open(figures: Mapping[str, Any]) -> str:
    lines = [
        "| To open it and get the answer to `sys` | time | CPU time | needs |",
        "|---|--:|--:|---|",
    ]
    for name, (measured, needs) in _TO_OPEN.items():
        cost = figures[measured]["cost"]
        wall, cpu = _seconds(cost["wall"]), _seconds(cost["cpu"])
        lines.append(f"| {name} | {wall} | {cpu} | {needs} |")
    return "\n".join(lines) + "\n"


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value:.2f} s"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def write_docs(folder: Path, record: Mapping[str, Any], text: str) -> None:
    """
    Write the figures into the README beside the manual's folder, and into the manual.

    :param text: The tables as they were printed.
    """
    readme = folder.parent / "README.md"
    filled = fill(readme.read_text(), record)
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    (folder / _TEXT).write_text(text)
    readme.write_text(filled)
