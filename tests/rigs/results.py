# SPDX-License-Identifier: GPL-2.0-or-later
"""
Part of pytest here: choose kernels, and keep what the tests found on each.

``--kernel NAME`` runs only the tests of that kernel, of each architecture; it may be
given more than once. ``--results FILE`` writes what each test found on each kernel into
a file, which `rigs.support` makes the manual's table of.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rigs.scenarios import Scenario

__all__ = [
    "Results",
    "add_results",
    "kernel_of",
    "pytest_addoption",
    "pytest_configure",
]

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
_KERNEL = "kernel"
"""Property of a test; the other ones are put into the file as they are."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kernel", action="append", metavar="NAME", help="run only this kernel's tests"
    )
    parser.addoption(
        "--results", type=Path, metavar="FILE", help="keep each kernel's results there"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Results(config), "kernels and results")


def kernel_of(item: pytest.Item) -> tuple[str, str] | None:
    """Return the architecture and the kernel of a test, if it has one."""
    callspec = getattr(item, "callspec", None)
    given: dict[str, Any] = callspec.params if callspec is not None else {}
    scenario = given.get("dead")
    if isinstance(scenario, Scenario):
        return scenario.architecture.name, scenario.kernel
    if "architecture" in given and isinstance(given.get("kernel"), str):
        return given["architecture"].name, given["kernel"]
    return None


class Results:
    """What the tests of this run found."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._found: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        wanted = config.getoption("--kernel")
        kept: list[pytest.Item] = []
        others: list[pytest.Item] = []
        for item in items:
            kernel = kernel_of(item)
            if kernel is not None:
                item.user_properties.append((_KERNEL, " ".join(kernel)))
            chosen = wanted is None or (kernel is not None and kernel[1] in wanted)
            (kept if chosen else others).append(item)
        if others:
            config.hook.pytest_deselected(items=others)
            items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a part of a test: it has failed if any part of it has."""
        properties = dict(report.user_properties)
        kernel = properties.pop(_KERNEL, None)
        if kernel is None or (report.when != "call" and report.passed):
            return
        found = self._found.setdefault(str(kernel), {"tests": {}})
        found |= properties
        name = report.nodeid.rpartition("::")[2].partition("[")[0]
        outcome = report.outcome
        reason = _reason(report) if outcome == SKIPPED else ""
        before = found["tests"].get(name)
        if before is None or before[0] == SKIPPED or outcome == FAILED:
            found["tests"][name] = [outcome, reason] if reason else [outcome]

    def pytest_sessionfinish(self) -> None:
        path: Path | None = self._config.getoption("--results")
        if path is None or hasattr(self._config, "workerinput") or not self._found:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        add_results(path, self._found)


def add_results(path: Path, new: dict[str, dict[str, Any]]) -> None:
    """Put results into a file; what a test found before is replaced."""
    known = json.loads(path.read_text()) if path.exists() else {}
    for kernel, found in new.items():
        before = known.get(kernel, {"tests": {}})
        tests = before["tests"] | found["tests"]
        known[kernel] = before | found | {"tests": tests}
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def _reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    return text.removeprefix("Skipped: ")
