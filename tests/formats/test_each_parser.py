# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of parsers, which tests and fuzzers walk, has every parser there is."""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType

import kmemdump
from kmemdump.errors import KmemdumpError
from rigs.parsers import PARSERS

PACKAGE = Path(kmemdump.__file__).parent
ROOMS_OF_OUR_OWN = ("cli", "lab", "__init__", "__main__")
NAMES = re.compile(
    "(parse|find|read|iter|interpret|describe|decompress|from|tokens|make|translate|"
    "walk|repair|receive|c_string|fdt_size)(_|$)"
)
BYTES = {
    "bytes",
    "Read",
    "ReadVirtual",
    "Callable[[int, int], bytes]",
    "Mapping[str, object]",
}
TEXT = ("text", "raw")
PEOPLE_SAY = {
    "kmemdump.crash_kernel.places.parse_place",
    "kmemdump.opening.parse_pid",
    "kmemdump.questions.parse.parse_question",
    "kmemdump.targets.image.parse_memory_map",
    "kmemdump.watch.sources.metadata.MetadataFilter.parse",
    "kmemdump.memory.search.find_bytes",
    "kmemdump.checks.point.missing",
}
"""Functions that parse what the user typed, or only search for bytes."""
OURS = re.compile(r"kmemdump\.(backends|checks)\.")
"""These get what they wrote themselves."""


def takes_bytes(function: ast.FunctionDef) -> bool:
    for argument in [it for it in function.args.args if it.arg != "cls"][:2]:
        kind = ast.unparse(argument.annotation) if argument.annotation else ""
        if kind in BYTES or (kind == "str" and argument.arg in TEXT):
            return True
    return False


def functions_of(file: Path) -> Iterator[str]:
    """Yield the names of public functions that make values of bytes from outside."""
    module = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
    module = module.removesuffix(".__init__")
    for node in ast.parse(file.read_bytes()).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        holder = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for item in inner:
            if (
                isinstance(item, ast.FunctionDef)
                and NAMES.match(item.name)
                and takes_bytes(item)
            ):
                yield f"{module}.{holder}{item.name}"


def code_of(name: str) -> CodeType:
    module, _, rest = name.rpartition(".")
    with suppress(ModuleNotFoundError):
        function = getattr(importlib.import_module(module), rest)
        return inspect.unwrap(function).__code__
    module, _, holder = module.rpartition(".")
    found = getattr(getattr(importlib.import_module(module), holder), rest)
    return inspect.unwrap(found).__code__


def called_on_seeds() -> set[CodeType]:
    called: set[CodeType] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    for parser in PARSERS:
        for seed in parser.seeds:
            sys.setprofile(note)
            try:
                with suppress(KmemdumpError):
                    parser.run(seed)
            finally:
                sys.setprofile(None)
    return called


FUNCTIONS = {
    name
    for file in PACKAGE.rglob("*.py")
    if file.relative_to(PACKAGE).with_suffix("").parts[0] not in ROOMS_OF_OUR_OWN
    for name in functions_of(file)
    if not OURS.match(name)
}


def test_none_is_forgotten() -> None:
    called = called_on_seeds()
    forgotten = {name for name in FUNCTIONS if code_of(name) not in called}
    assert forgotten == PEOPLE_SAY & FUNCTIONS, "add them to tests/rigs/parsers.py"


def test_formats_and_friends_are_found() -> None:
    """Or the test above would prove nothing."""
    assert {
        "kmemdump.formats.btf.parse_btf",
        "kmemdump.formats.elf.parse_core",
        "kmemdump.formats.mtree.parse_mtree",
        "kmemdump.coreimage.manifest.Manifest.from_json",
        "kmemdump.kernel.printk.read_log",
        "kmemdump.vmcoreinfo.VmcoreInfo.parse",
        "kmemdump.watch.qmp_events.interpret_event",
    } <= FUNCTIONS


def test_names_are_unique() -> None:
    assert len({parser.name for parser in PARSERS}) == len(PARSERS)
