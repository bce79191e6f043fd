# SPDX-License-Identifier: GPL-2.0-or-later
"""The public API is what ``__init__`` names, and all of it is there."""

import ast
import subprocess
import sys
from pathlib import Path

import kmemdump


def test_every_name_can_be_imported() -> None:
    for name in kmemdump.__all__:
        assert getattr(kmemdump, name) is not None


def test_type_checkers_and_python_see_the_same_names() -> None:
    tree = ast.parse(Path(kmemdump.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == set(kmemdump.__all__)


def test_import_does_not_load_drgn() -> None:
    script = "import sys, kmemdump; sys.exit('drgn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
