# SPDX-License-Identifier: GPL-2.0-or-later
"""Each room imports only itself and the rooms listed before it; no file a circle."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import kmemdump

ROOMS = [
    # The ground.
    "errors",
    "version",
    "text",
    "progress",
    "folders",
    "user_folders",
    "installing",
    "files",
    "locked_folder",
    "proc",
    "bounds",
    "vmcoreinfo",
    # Bytes and what they mean: nothing of drgn but in the recorder.
    "memory",
    "formats",
    "arch",
    "kernel_search",
    "sealing",
    "coreimage",
    # What holds memory, and what dumps it.
    "backends",
    "firmware",
    "targets",
    "firmware_dumps",
    "opening",
    "bounded",
    "logs",
    # A kernel, and what is asked of it.
    "kernel",
    "questions",
    "areas",
    "diagnosis",
    "marking",
    "crash_kernel",
    # For people.
    "debuggers",
    "report",
    "core",
    "redaction",
    "catalogue",
    "collect",
    "watch",
    "agent",
    "checks",
    "lab",
    "cli",
]
"""docs/design.rst says what each is for, in the same order."""

PACKAGE = Path(kmemdump.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
THE_WHOLE = ("__init__", "__main__")
"""The public API, and what starts the command line: no rooms."""


def room_of(module: str) -> str:
    return module.removeprefix("kmemdump.").partition(".")[0]


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file) for file in FILES}


def imports_of(file: Path) -> Iterator[str]:
    """Yield the modules of ours that are imported, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the room"
            for item in node.names:
                part = f"{node.module}.{item.name}"
                yield part if part in MODULES else node.module or ""
        elif isinstance(node, ast.Import):
            yield from (item.name for item in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda it: str(it.relative_to(PACKAGE)))
def test_imports_go_down(file: Path) -> None:
    own = file.relative_to(PACKAGE).with_suffix("").parts[0]
    if own in THE_WHOLE:
        pytest.skip("belongs to no room")
    upwards = {
        module
        for module in imports_of(file)
        if module.startswith("kmemdump.")
        and ROOMS.index(room_of(module)) > ROOMS.index(own)
    }
    assert not upwards


def test_each_room_is_listed() -> None:
    there = {file.relative_to(PACKAGE).with_suffix("").parts[0] for file in FILES}
    assert there - set(THE_WHOLE) == set(ROOMS)
    page = (PACKAGE.parents[1] / "docs" / "design.rst").read_text()
    assert re.findall(r"^``(\w+)/?`` ", page, re.MULTILINE) == ROOMS


@pytest.mark.slow
def test_no_circles() -> None:
    """Of files, also within a room; the public API imports when it is asked."""
    graph = {
        module_of(file): set(imports_of(file))
        for file in FILES
        if file.relative_to(PACKAGE).stem not in THE_WHOLE or file.parent != PACKAGE
    }
    for module, imported in graph.items():
        imported &= graph.keys() - {module}
    TopologicalSorter(graph).prepare()  # Raises CycleError, which names the files.
