# SPDX-License-Identifier: GPL-2.0-or-later
"""
The examples of docs/contributing are commits that apply, are clean, and pass tests.

A reader applies them with ``git am``, so they must fit as they are. If one does not
any more, apply it with ``git apply -C1``, commit, and replace its changes by what
``git diff -U2 HEAD~1`` says.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "contributing"
TESTS = {
    "format": ["tests/formats/test_srec.py"],
    "target": ["tests/targets/test_files.py", "-k", "srec"],
    "backend": ["tests/backends/test_probe.py", "tests/marking/test_registry_model.py"],
    "architecture": ["tests/arch/test_riscv64.py", "tests/arch/test_architectures.py"],
}
STARTS_FROM = {"target": "format"}


def test_each_example_is_tried() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.patch")} == set(TESTS)


@pytest.mark.parametrize("name", TESTS)
def test_example(name: str, tmp_path: Path) -> None:
    for folder in ("src", "tests", "docs"):
        shutil.copytree(
            ROOT / folder,
            tmp_path / folder,
            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for patch in filter(None, (STARTS_FROM.get(name), name)):
        apply = ["git", "apply", EXAMPLES / f"{patch}.patch"]
        subprocess.run(apply, cwd=tmp_path, check=True)
    changed = re.findall(r"^\+\+\+ b/(.*\.py)$", _read(name), re.M)
    _run(tmp_path, "ruff", "check", "--no-cache", *changed)
    _run(tmp_path, "ruff", "format", "--check", "--no-cache", *changed)
    sources = [path for path in changed if path.startswith("src/")]
    _run(tmp_path, "mypy", "--cache-dir", os.devnull, *sources)
    said = _run(tmp_path, "pytest", "-q", "-p", "no:cacheprovider", *TESTS[name])
    assert " passed" in said


def _read(name: str) -> str:
    return (EXAMPLES / f"{name}.patch").read_text()


def _run(folder: Path, module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
