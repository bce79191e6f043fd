# SPDX-License-Identifier: GPL-2.0-or-later
"""drgn's private names are used in one file only."""

import ast
from pathlib import Path

import pytest

import kmemdump
from kmemdump.questions import drgn_internals

PACKAGE = Path(kmemdump.__file__).parent


def private_names(file: Path) -> list[str]:
    return [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] in ("drgn", "_drgn")
        for alias in node.names
        if "._" in f".{node.module}.{alias.name}"
    ]


@pytest.mark.slow
def test_private_names_of_drgn_are_in_one_file():
    found = {file for file in PACKAGE.rglob("*.py") if private_names(file)}
    assert found == {Path(drgn_internals.__file__)}
