# SPDX-License-Identifier: GPL-2.0-or-later
"""The rooms of the house: imports go down this list only, and nothing in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import kmemdump

ROOMS = [
    # The ground.
    "errors",
    "version",
    "text",
    "progress",
    "files",
    "vmcoreinfo",
    # Bytes and what they mean: nothing of drgn but in the recorder.
    "memory",
    "formats",
    "arch",
    "coreimage",
    # What holds memory, and what dumps it.
    "backends",
    "firmware",
    "targets",
    "firmware_dumps",
    "opening",
    # A kernel, and what is asked of it.
    "kernel",
    "questions",
    "areas",
    "diagnosis",
    "marking",
    # For people.
    "debuggers",
    "report",
    "core",
    "collect",
    "watch",
    "agent",
    "lab",
    "cli",
]
"""From the ground up. docs/design.rst says what each is for."""

PACKAGE = Path(kmemdump.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
THE_WHOLE = ("__init__", "__main__")
"""The public API, and what starts the command line: no rooms."""


def room_of(module: str) -> str:
    return module.removeprefix("kmemdump.").partition(".")[0]


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Yield the modules of ours that are imported, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the room"
            module = node.module or ""
            names = [f"{module}.{it.name}" for it in node.names]
            yield from names if module == "kmemdump" else [module]
        elif isinstance(node, ast.Import):
            yield from (it.name for it in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda it: str(it.relative_to(PACKAGE)))
def test_imports_go_down(file: Path) -> None:
    own = file.relative_to(PACKAGE).with_suffix("").parts[0]
    if own in THE_WHOLE:
        pytest.skip("belongs to no room")
    upwards = {
        module
        for module in imports_of(ast.parse(file.read_bytes()))
        if module.startswith("kmemdump.")
        and ROOMS.index(room_of(module)) > ROOMS.index(own)
    }
    assert not upwards


def test_each_room_is_listed() -> None:
    there = {file.relative_to(PACKAGE).with_suffix("").parts[0] for file in FILES}
    assert there - set(THE_WHOLE) == set(ROOMS)
