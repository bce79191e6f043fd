# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of what is supported is what the tests run, cell by cell."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kmemdump.lab import ARCHITECTURES, Architecture
from rigs.scenarios import SERIES, Scenario
from rigs.support import RUN, RUN_IN_MATRIX, table

Kernel = tuple[str, str]


def test_every_kernel() -> None:
    kernels, _ = table()
    assert set(kernels) == {
        (a.name, series) for a in ARCHITECTURES for series in SERIES
    }


def find(name: str) -> tuple[str, Callable[..., None]]:
    """Return the source of the module with a test of kernels, and the test."""
    found = []
    for path in Path(__file__).parent.rglob("test_*.py"):
        source = path.read_text()
        if f"\ndef {name}(" in source:
            spec = importlib.util.spec_from_file_location(f"rows_{path.stem}", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # Dataclasses look there.
            spec.loader.exec_module(module)
            test: Callable[..., None] = getattr(module, name)
            if any(kernels_of(test)):
                found.append((source, test))
    [only] = found
    return only


def kernels_of(test: Callable[..., None]) -> Iterator[tuple[Kernel, set[str]]]:
    """Yield the kernel of each parameter set, and the names of its marks."""
    for mark in getattr(test, "pytestmark", ()):
        if mark.name != "parametrize" or not {"dead", "architecture"} & {
            *([mark.args[0]] if isinstance(mark.args[0], str) else mark.args[0])
        }:
            continue
        for item in mark.args[1]:
            marks = {mark.name for mark in getattr(item, "marks", ())}
            values = getattr(item, "values", item)
            if isinstance(values[0], Scenario):
                [scenario] = values
                yield (scenario.architecture.name, scenario.kernel), marks
                continue
            [architecture] = [i for i in values if isinstance(i, Architecture)]
            [series] = [i for i in values if i in SERIES]
            yield (architecture.name, series), marks


@pytest.mark.parametrize("name", table()[1])
def test_every_row(name: str) -> None:
    source, test = find(name)
    run: set[Kernel] = set()
    in_matrix: set[Kernel] = set()
    for kernel, marks in kernels_of(test):
        if "skip" not in marks:
            (in_matrix if "matrix" in marks else run).add(kernel)
    for kernel, cell in table()[1][name].items():
        if cell == RUN:
            assert kernel in run, kernel
        elif cell == RUN_IN_MATRIX:
            assert kernel in in_matrix - run, kernel
        elif kernel in run | in_matrix:
            assert f'require("{name}", dead.scenario)' in source, kernel
