# SPDX-License-Identifier: GPL-2.0-or-later
"""Definition of an area."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drgn import FaultError, Object, Program
from drgn.helpers.linux.cpumask import for_each_possible_cpu

from kmemdump.memory.ranges import ADDRESS_SPACE
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import Question, function

__all__ = ["Area", "area", "read_bytes", "read_symbol"]

_MAX_SYMBOL = 1 << 20
"""Most bytes to read of one variable by name."""
_UNKNOWN_SIZE = 512
"""Bytes to read of a variable if only its address is known."""


@dataclass(frozen=True, slots=True)
class Area:
    """A named set of variables and questions about one kernel subsystem."""

    name: str
    summary: str
    questions: tuple[Question, ...]
    variables: tuple[str, ...] = ()
    """Global variables that are recorded whole; a kernel may lack some."""
    default: bool = True
    """Whether it is marked if no area is named."""
    early: bool = False
    """Whether it helps only a dump of what was marked before: no host looks again."""
    packed: bool = False
    """Whether it never changes, so that a core image keeps it compressed."""
    for_crash: bool = True
    """Whether crash reads its memory, too, and so needs whole pages of it."""


def area(
    name: str,
    summary: str,
    *questions: str | Question | Callable[[Program], None],
    variables: tuple[str, ...] = (),
    default: bool = True,
    early: bool = False,
    packed: bool = False,
    for_crash: bool = True,
) -> Area:
    """Make an area from crash commands and Python functions."""
    return Area(
        name,
        summary,
        tuple(_question(question) for question in questions),
        variables,
        default,
        early,
        packed,
        for_crash,
    )


def _question(given: str | Question | Callable[[Program], None]) -> Question:
    if isinstance(given, Question):
        return given
    return command(given) if isinstance(given, str) else function(given)


def read_symbol(prog: Program, name: str) -> bool:
    """
    Read a variable whole, without following pointers.

    :return: Whether the kernel has such a variable.
    """
    offsets = _per_cpu_offsets(prog, name)
    try:
        value: Object = prog.variable(name)
        for offset in offsets:
            address = (value.address_ + offset) % ADDRESS_SPACE
            Object(prog, value.type_, address=address).read_()
    except (LookupError, TypeError):  # TypeError: an array without a length.
        return _read_untyped(prog, name, offsets)
    return True


def _per_cpu_offsets(prog: Program, name: str) -> list[int]:
    """Return the offset of each CPU's copy of a per-CPU variable; [0] for any other."""
    try:
        address = prog.symbol(name).address
        start, end = (
            prog.symbol(f"__per_cpu_{bound}").address for bound in ("start", "end")
        )
    except LookupError:
        return [0]
    if not start <= address < end:
        return [0]
    offsets = prog["__per_cpu_offset"]
    return [offsets[cpu].value_() for cpu in for_each_possible_cpu(prog)]


def _read_untyped(prog: Program, name: str, offsets: list[int]) -> bool:
    try:
        symbol = prog.symbol(name)
    except LookupError:
        return False
    for offset in offsets:
        address = (symbol.address + offset) % ADDRESS_SPACE
        prog.read(address, min(symbol.size or _UNKNOWN_SIZE, _MAX_SYMBOL))
    return True


def read_bytes(prog: Program, address: int, size: int, limit: int) -> bool:
    """
    Read memory that may be unmapped or damaged.

    :param limit: Most plausible bytes; a larger size is taken to be damaged.
    :return: Whether it could be read.
    """
    if not 0 < size <= limit:
        return False
    try:
        prog.read(address, size)
    except FaultError:
        return False
    return True
