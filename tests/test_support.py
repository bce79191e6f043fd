# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual's table of kernels is what the tests found, and the tests are on each."""

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from kmemdump.lab import Architecture
from rigs.scenarios import KERNELS, TESTED, Scenario
from rigs.support import COLUMNS, PAGE, RESULTS, table, write

Kernel = tuple[str, str]
NAMES = list(chain.from_iterable(COLUMNS.values()))
EVERY = {(it.name, kernel) for it, kernels in KERNELS.items() for kernel in kernels}


def test_the_page_is_made_of_the_results() -> None:
    """If not: ``python tests/rigs/support.py``."""
    assert PAGE.read_text() == write(json.loads(RESULTS.read_text()))


def test_results_are_of_kernels_that_are_tested() -> None:
    known = {tuple(name.split()) for name in json.loads(RESULTS.read_text())}
    assert known <= EVERY


def test_the_page_explains_each_column() -> None:
    for heading, tests in COLUMNS.items():
        for test in tests:
            explained = rf"^{heading} .*(?:\n .*)*``{test}``"
            assert re.search(explained, PAGE.read_text(), re.MULTILINE)


def test_what_a_table_says() -> None:
    tests = {name: ["passed"] for name in NAMES}
    lacking = tests | {"test_gdb": ["skipped", "no gdb"], "test_deaths": ["failed"]}
    results = {
        "x86_64 6.1": {"tests": tests, "release": "6.1.0-9", "core": 8e6, "crash": "9"},
        "x86_64 7.0": {"tests": lacking, "core": 8123456, "crash": "9"},
    }
    ruler, head, again, first, second, third, last = table(
        results, "x86_64", ("6.1", "7.0", "7.1")
    ).splitlines()
    assert ruler == again == last
    assert head.split()[:4] == ["kernel", "release", "answers", "vmlinux"]
    yes = ["yes"] * 6
    assert first.split() == ["6.1", "6.1.0-9", *yes, "9", "yes", "8.0"]
    assert second.split() == [
        *("7.0", "yes", "yes", "no", "yes", "yes", "n/a", "9", "yes", "8.1")
    ]
    assert third.split() == ["7.1", *"?????????"]


def find(name: str) -> Callable[..., None]:
    """Return a test of kernels."""
    found = []
    for path in Path(__file__).parent.rglob("test_*.py"):
        if f"\ndef {name}(" in path.read_text():
            spec = importlib.util.spec_from_file_location(f"rows_{path.stem}", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # Dataclasses look there.
            spec.loader.exec_module(module)
            test: Callable[..., None] = getattr(module, name)
            if kernels_of(test):
                found.append(test)
    [only] = found
    return only


def kernels_of(test: Callable[..., None]) -> dict[Kernel, list[set[str]]]:
    """Return the names of the marks that a test has for each death, by kernel."""
    found: dict[Kernel, list[set[str]]] = {}
    for mark in getattr(test, "pytestmark", ()):
        if mark.name != "parametrize":
            continue
        for item in mark.args[1]:
            marks = {mark.name for mark in getattr(item, "marks", ())}
            match getattr(item, "values", item):
                case [Scenario() as it]:
                    kernel = it.architecture.name, it.kernel
                case [Architecture() as it, str(name), *_]:
                    kernel = it.name, name
                case _:
                    continue
            if "left_out" not in marks:
                found.setdefault(kernel, []).append(marks)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_each_column_is_tested_on_each_kernel(name: str) -> None:
    kernels = kernels_of(find(name))
    silent = {("aarch64", "6.1")}
    assert kernels.keys() >= EVERY - silent
    for kernel in EVERY - silent:
        assert any("basic" in marks for marks in kernels[kernel]), kernel


def test_what_make_test_runs() -> None:
    kernels = kernels_of(find("test_answers_without_debug_info"))
    run = {
        kernel
        for kernel, deaths in kernels.items()
        if any("matrix" not in marks for marks in deaths)
    }
    assert run == {(it.name, name) for it, names in TESTED.items() for name in names}
