# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run keeps of each kernel, and how kernels are chosen."""

import json
from pathlib import Path

import pytest

from rigs.results import add_results

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

TESTS = """
import pytest
from rigs.scenarios import hang, panic

each = pytest.mark.parametrize("dead", [panic("6.1"), hang("6.1"), panic("newest")])

@each
def test_good(dead, record_property):
    record_property("core", 7)

@each
def test_bad(dead):
    assert dead != hang("6.1")

@each
def test_left(dead):
    pytest.skip("no file")

@each
def test_broken(dead, nosuch):
    pass

def test_of_no_kernel():
    pass
"""
HOOKS = "from rigs.results import pytest_addoption, pytest_configure\n"


@pytest.fixture
def run(pytester, monkeypatch):
    """``run(*options)`` is the outcomes of these tests, and the results."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    pytester.makeconftest(HOOKS)
    pytester.makepyfile(TESTS)

    def run_it(*options):
        ended = pytester.runpytest_subprocess(
            "-p", "no:cacheprovider", "--results", "deep/found.json", *options
        )
        path = pytester.path / "deep/found.json"
        found = json.loads(path.read_text()) if path.exists() else None
        return ended.parseoutcomes(), found

    return run_it


def test_outcomes(run):
    outcomes, found = run()
    assert outcomes == {"passed": 6, "failed": 1, "skipped": 3, "errors": 3}
    assert found == {
        "x86_64 6.1": {
            "core": 7,
            "tests": {
                "test_bad": ["failed"],
                "test_broken": ["failed"],
                "test_good": ["passed"],
                "test_left": ["skipped", "no file"],
            },
        },
        "x86_64 newest": {
            "core": 7,
            "tests": {
                "test_bad": ["passed"],
                "test_broken": ["failed"],
                "test_good": ["passed"],
                "test_left": ["skipped", "no file"],
            },
        },
    }


def test_one_kernel(run):
    outcomes, found = run("--kernel", "newest", "-k", "good or bad")
    assert outcomes == {"passed": 2, "deselected": 11}
    assert list(found) == ["x86_64 newest"]


def test_several_processes(run):
    outcomes, found = run("-n", "2", "-k", "good")
    assert outcomes["passed"] == 3
    assert found["x86_64 6.1"]["tests"] == {"test_good": ["passed"]}


def test_results_are_added(tmp_path):
    path = tmp_path / "results"
    add_results(path, {"a": {"core": 1, "tests": {"t": ["failed"], "u": ["passed"]}}})
    add_results(path, {"a": {"core": 2, "tests": {"t": ["passed"]}}})
    assert json.loads(path.read_text()) == {
        "a": {"core": 2, "tests": {"t": ["passed"], "u": ["passed"]}}
    }
