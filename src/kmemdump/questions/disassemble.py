# SPDX-License-Identifier: GPL-2.0-or-later
"""The question ``dis``: a function's machine code in assembly."""

from __future__ import annotations

import re

from drgn import FaultError, Program, Symbol

from kmemdump.arch.architecture import arch_from_program
from kmemdump.arch.disassembly import Decoded, disassemble, disassemble_around
from kmemdump.errors import QuestionError, UsageError
from kmemdump.kernel.module_symbols import find_module_symbol
from kmemdump.kernel.symbol_names import plain_name
from kmemdump.questions.question import Question

__all__ = ["disassembly"]

_WORDS = re.compile(
    r"\s+(?:(?P<name>[A-Za-z_][\w.$]*)|(?P<address>0x[0-9a-f]{1,16}))"
    r"(?:\+(?P<offset>0x[0-9a-f]{1,8}|\d{1,8}))?\s*",
    re.I,
)
_TARGET = re.compile(r"(?:^|[ ,#])(0x[0-9a-f]{5,16})$")
_MAX_CODE = 64 << 10
"""Bytes of a function."""
_BEFORE, _AFTER = 64, 64
"""Bytes of code shown around an address within a function."""


def disassembly(text: str) -> Question:
    """
    Return the question that ``dis FUNCTION``, ``dis FUNCTION+OFFSET`` or
    ``dis ADDRESS`` puts.

    :raises UsageError: If *text* is none of these.
    """
    match = _WORDS.fullmatch(text.removeprefix("dis"))
    if match is None:
        raise UsageError(
            f"question {text!r}: expected dis FUNCTION, dis FUNCTION+OFFSET or "
            "dis ADDRESS, for example 'dis schedule' or 'dis vfs_write+0x25d'"
        )
    offset = int(match["offset"], 0) if match["offset"] else None

    def put(prog: Program) -> None:
        if match["name"]:
            _print_function(prog, match["name"], offset)
        else:
            _print_around(prog, int(match["address"], 16) + (offset or 0))

    return Question(text, put)


def _print_function(prog: Program, name: str, offset: int | None) -> None:
    symbol = _find_function(prog, name)
    if offset is not None:
        _print_around(prog, symbol.address + offset)
        return
    size = symbol.size
    if not 0 < size <= _MAX_CODE:
        raise QuestionError(name, f"has {size} bytes, expected 1 to {_MAX_CODE}", "")
    data = _read(prog, symbol.address, size)
    machine = arch_from_program(prog).name
    _print(prog, disassemble(machine, data, symbol.address), None)


def _find_function(prog: Program, name: str) -> Symbol:
    """
    Return the symbol of a function of the kernel, or of a module.

    :raises LookupError: If there is none, or the modules' symbols cannot be read.
    """
    try:
        return prog.symbol(name)
    except LookupError as error:
        found = find_module_symbol(prog, name)
        if found is None:
            error.add_note(
                "nor has a module of it, as far as its symbols are here: those of "
                "modules without a function on a stack are not in a core image"
            )
            raise
        return found


def _print_around(prog: Program, address: int) -> None:
    first, last = address - _BEFORE, address + _AFTER
    start = first
    try:
        symbol = prog.symbol(address)
    except LookupError:
        pass
    else:
        # From a function's start on, it is known where instructions begin.
        start = symbol.address if address - symbol.address < _MAX_CODE else first
        end = symbol.address + symbol.size
        last = min(last, end) if end > address else last
    machine = arch_from_program(prog).name
    try:
        data = prog.read(start, last - start)
    except FaultError:
        start = max(first, start)
        data = _read(prog, start, last - start)
    found = disassemble_around(machine, data, start, address - start)
    _print(prog, [item for item in found if item.address >= first], address)


def _read(prog: Program, address: int, size: int) -> bytes:
    try:
        data: bytes = prog.read(address, size)
    except FaultError as error:
        error.add_note(
            "code is only in a core image if it was marked: --area crash, or "
            "--region NAME=ADDRESS:SIZE"
        )
        raise
    return data


def _print(prog: Program, found: list[Decoded], marked: int | None) -> None:
    shown = None
    for item in found:
        source = _source(prog, item.address)
        if source and source != shown:
            print(f"    {source}")
        shown = source or shown
        arrow = "->" if item.address == marked else "  "
        text = item.text or f"(bad) {item.code.hex(' ')}"
        if target := _TARGET.search(text):
            place = _place(prog, int(target[1], 16))
            text = f"{text} <{place}>" if place else text
        print(f"{arrow} {item.address:#x} <{_place(prog, item.address)}>  {text}")


def _place(prog: Program, address: int) -> str:
    try:
        symbol = prog.symbol(address)
    except LookupError:
        return ""
    offset = address - symbol.address
    name = plain_name(symbol.name)
    return f"{name}+{offset:#x}" if offset else name


def _source(prog: Program, address: int) -> str:
    try:
        location = prog.source_location(address)[0]
    except LookupError:
        return ""
    return f"{location.filename}:{location.line}" if location.filename else ""
