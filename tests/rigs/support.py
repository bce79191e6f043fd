# SPDX-License-Identifier: GPL-2.0-or-later
"""
The manual's table of kernels, made of what the tests found on each.

A program: ``python tests/rigs/support.py [RESULTS]`` puts the results of a run with
``--results`` into the manual.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rigs.results import add_results
from rigs.scenarios import KERNELS

__all__ = ["COLUMNS", "PAGE", "RESULTS", "Results", "table", "tables", "write"]

PAGE = Path(__file__).parents[2] / "docs/reference/support.rst"
RESULTS = Path(__file__).parents[2] / "docs/reference/kernels.json"
"""What ``make matrix`` found, of all kernels."""

Results = dict[str, dict[str, Any]]
"""By architecture and kernel."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "answers": ("test_answers_without_debug_info",),
    "vmlinux": ("test_answers_with_debug_info", "test_debug_info_adds_only_names"),
    "report": ("test_deaths",),
    "watch": ("test_watch_notices",),
    "drgn": ("test_plain_drgn_with_the_plugin",),
    "gdb": ("test_gdb",),
    "crash": ("test_newest_crash",),
    "wrapped log": ("test_wrapped_log_of_a_real_kernel",),
    "MB": ("test_size",),
}
"""Headings, and the tests that decide what is below them."""

_START, _END = ".. The next lines are written by tests/rigs/support.py.\n", ".. End.\n"


def table(results: Results, architecture: str, kernels: Sequence[str]) -> str:
    """Return the table of an architecture, as reStructuredText."""
    rows = [["kernel", "release", *COLUMNS]]
    for kernel in kernels:
        found = results.get(f"{architecture} {kernel}", {"tests": {}})
        release = found.get("release", "")
        rows.append([kernel, release, *_cells(found)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    ruler = "  ".join("=" * width for width in widths)
    lines = [
        "  ".join(
            text.ljust(width) for text, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([ruler, lines[0], ruler, *lines[1:], ruler]) + "\n"


def _cells(found: dict[str, Any]) -> Iterator[str]:
    for heading, tests in COLUMNS.items():
        outcomes = {found["tests"].get(test, ["?"])[0] for test in tests}
        for outcome, cell in {"failed": "no", "?": "?", "skipped": "n/a"}.items():
            if outcome in outcomes:
                yield cell
                break
        else:
            yield _passed(heading, found)


def _passed(heading: str, found: dict[str, Any]) -> str:
    if heading == "MB":
        return f"{found['core'] / 1e6:.1f}"
    return str(found["crash"]) if heading == "crash" else "yes"


def tables(results: Results) -> str:
    """Return the part of the page that is made of results."""
    parts = [
        f"{architecture.name}:\n\n{table(results, architecture.name, kernels)}\n"
        for architecture, kernels in KERNELS.items()
    ]
    reasons = _reasons(results)
    lines = (f"* {', '.join(reasons[it])}: {it}\n" for it in sorted(reasons))
    if reasons:
        parts.append(f"Why a cell has n/a:\n\n{''.join(lines)}\n")
    return "\n".join(parts)


def _reasons(results: Results) -> dict[str, list[str]]:
    """Return why tests were skipped, and on which kernels."""
    found: dict[str, list[str]] = {}
    for architecture, kernels in KERNELS.items():
        for kernel in kernels:
            tests = results.get(f"{architecture.name} {kernel}", {}).get("tests", {})
            for test in chain.from_iterable(COLUMNS.values()):
                outcome, *reason = tests.get(test, ["?"])
                if outcome == "skipped":
                    where = found.setdefault("".join(reason), [])
                    name = f"{kernel} ({architecture.name})"
                    where += [name] if name not in where else []
    return found


def write(results: Results) -> str:
    """Return the page with other results."""
    before, rest = PAGE.read_text().split(_START)
    after = rest.split(_END)[1]
    return f"{before}{_START}\n{tables(results)}{_END}{after}"


def main(arguments: Sequence[str]) -> int:
    if arguments:
        add_results(RESULTS, json.loads(Path(arguments[0]).read_text()))
    PAGE.write_text(write(json.loads(RESULTS.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
