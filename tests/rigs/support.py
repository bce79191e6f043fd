# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual's table of supported kernels, which the tests check."""

import re
from functools import cache
from pathlib import Path

import pytest

from rigs.scenarios import Scenario

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "support.rst"
RUN = "yes"
"""Cell of a test that ``make test`` runs."""
RUN_IN_MATRIX = "matrix"
"""Cell of a test that only ``make matrix`` runs."""


@cache
def table() -> tuple[list[tuple[str, str]], dict[str, dict[tuple[str, str], str]]]:
    """Return the kernels, and by test the cells by kernel."""
    parts = re.split(r"(?m)^(=+(?: +=+)+)\n", PAGE.read_text())
    ruler, head, body = parts[1], parts[2], parts[4]
    places = [match.span() for match in re.finditer("=+", ruler)]

    def cells(line: str) -> list[str]:
        return [line[start:end].strip() for start, end in places]

    _, *names, _ = zip(*map(cells, head.splitlines()), strict=True)
    found = {}
    for line in body.splitlines():
        _, *values, test = cells(line)
        found[test] = dict(zip(names, values, strict=True))
    return [(arch, series) for arch, series in names], found


def require(test: str, scenario: Scenario) -> None:
    """Skip a test that the table marks as not run."""
    cell = table()[1][test][scenario.architecture.name, scenario.kernel]
    if cell not in (RUN, RUN_IN_MATRIX):
        pytest.skip(f"docs/reference/support.rst says: {cell}")
