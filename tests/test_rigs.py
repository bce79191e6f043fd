# SPDX-License-Identifier: GPL-2.0-or-later
"""Rigs are what cases are made with, and know none."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
RIGS = sorted((TESTS / "rigs").rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", RIGS, ids=lambda path: path.stem)
def test_rigs_import_no_cases(path: Path) -> None:
    cases = {item.stem for item in TESTS.iterdir()} - {"rigs"}
    assert {name.partition(".")[0] for name in imports(path)} & cases == set()
