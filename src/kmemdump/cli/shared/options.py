# SPDX-License-Identifier: GPL-2.0-or-later
"""
Options that several verbs share.

As in the verbs, what loads drgn is imported when it is used: ``--help`` does not wait
for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click

from kmemdump.cli.shared.log_output import held_back_warnings
from kmemdump.collect.source import Options
from kmemdump.errors import UsageError
from kmemdump.memory.ranges import ADDRESS_SPACE, Range
from kmemdump.opening import open_target
from kmemdump.targets import Target

if TYPE_CHECKING:
    from kmemdump.marking.selection import Selection

__all__ = [
    "SelectionOptions",
    "firmware_options",
    "grouped",
    "opened_target",
    "parse_range",
    "parse_selection",
    "selection_options",
    "target_options",
    "vmlinux_option",
]

_DAMAGED = f"{__name__}.damaged"
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _apply(function: _Function, *options: Callable[[Any], Any]) -> _Function:
    for option in reversed(options):
        function = option(function)
    return function


def grouped(
    function: Callable[..., Any],
    name: str,
    kind: Any,
    *options: Callable[[Any], Any],
) -> Callable[..., Any]:
    """
    Add options to a verb, as one parameter.

    :param name: Of the parameter.
    :param kind: Its type, a named tuple with a field for each option.
    """

    @functools.wraps(function)
    def collected(*arguments: Any, **given: Any) -> Any:
        fields = {field: given.pop(field) for field in kind._fields}
        return function(*arguments, **given, **{name: kind(**fields)})

    return _apply(collected, *options)


vmlinux_option = click.option(
    "--vmlinux",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The kernel's debug file, to be used instead of kallsyms and BTF.",
)


def target_options(function: _Function) -> _Function:
    """Add the options that say how to read a target."""
    return _apply(
        function,
        vmlinux_option,
        click.option(
            "--vmcoreinfo",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Text of VMCOREINFO, if the target does not hold it.",
        ),
        click.option(
            "--memory-map",
            metavar="FIRST-LAST@OFFSET,…",
            help="Physical addresses in a raw RAM image; found by default.",
        ),
        click.option(
            "--damaged",
            is_flag=True,
            expose_value=False,
            callback=_keep_damaged,
            help="Use what is left of a truncated file.",
        ),
    )


def _keep_damaged(
    context: click.Context, _parameter: click.Parameter, value: bool
) -> None:
    # A verb needs it only to open its target.
    context.meta[_DAMAGED] = value


def firmware_options(function: _Function) -> _Function:
    """Add the options that say where firmware's tables are, as one parameter."""

    @functools.wraps(function)
    def collected(
        *arguments: Any,
        smem: str | None,
        kinfo: str | None,
        memory_map: str | None,
        **others: Any,
    ) -> Any:
        options = Options(
            parse_range("--smem", smem) if smem else None,
            _parse_address("--kinfo", kinfo) if kinfo else None,
            memory_map=memory_map,
        )
        return function(*arguments, options=options, **others)

    return _apply(
        cast(_Function, collected),
        click.option(
            "--smem",
            metavar="ADDRESS:SIZE",
            help="Where SMEM is in a machine's memory; found by default.",
        ),
        click.option(
            "--kinfo",
            metavar="ADDRESS",
            help="Where a debug_kinfo is in it; found by default if there is no SMEM.",
        ),
        click.option(
            "--memory-map",
            metavar="FIRST-LAST@OFFSET,…",
            help="Physical addresses in a raw RAM image; found by default.",
        ),
    )


def _complete_area(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    from kmemdump.areas import AREAS

    return [area.name for area in AREAS if area.name.startswith(incomplete)]


class SelectionOptions(NamedTuple):
    """What to mark, as it was typed."""

    areas: tuple[str, ...]
    questions: tuple[str, ...]
    symbols: tuple[str, ...]
    regions: tuple[str, ...]


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what to mark, as the parameter *selected*."""
    return grouped(
        function,
        "selected",
        SelectionOptions,
        click.option(
            "--area",
            "areas",
            multiple=True,
            metavar="NAME",
            shell_complete=_complete_area,
            help="Mark this area; -NAME leaves one out, FILE.py adds those in it. "
            "Default: see 'areas'.",
        ),
        click.option(
            "--ask",
            "questions",
            multiple=True,
            metavar="QUESTION",
            help="Keep this answerable: a crash command, or FILE.py with functions.",
        ),
        click.option(
            "--symbol",
            "symbols",
            multiple=True,
            metavar="NAME",
            help="Mark this variable whole.",
        ),
        click.option(
            "--region",
            "regions",
            multiple=True,
            metavar="NAME=ADDRESS:SIZE",
            help="Mark this range of kernel virtual memory.",
        ),
    )


def parse_selection(selected: SelectionOptions, vmlinux: Path | None) -> Selection:
    """
    Parse what to mark.

    :raises UsageError: If one of the options makes no sense.
    """
    from kmemdump.marking.selection import select

    return select(
        areas=selected.areas,
        questions=selected.questions,
        symbols=selected.symbols,
        regions=[_parse_region(text) for text in selected.regions],
        vmlinux=vmlinux,
    )


def _parse_region(text: str) -> tuple[str, int, int]:
    name, equals, rest = text.partition("=")
    address, colon, size = rest.partition(":")
    try:
        if not (name and equals and colon):
            raise ValueError
        region = name, int(address, 0), int(size, 0)
    except ValueError:
        raise UsageError(
            f"--region {text!r}: expected NAME=ADDRESS:SIZE, "
            "for example buffer=0xffff888001234000:0x1000"
        ) from None
    if (
        not 0 <= region[1] < ADDRESS_SPACE
        or not 0 < region[2] <= ADDRESS_SPACE - region[1]
    ):
        raise UsageError(f"--region {text!r}: not within 64 bits")
    return region


def parse_range(option: str, text: str) -> Range:
    """
    Parse ``ADDRESS:SIZE``: physical memory.

    :raises UsageError: If it is something else.
    """
    address, _, size = text.partition(":")
    try:
        found = Range(int(address, 0), int(size, 0))
    except ValueError:
        found = Range(0, 0)
    if found.start < 0 or found.size <= 0 or found.end > ADDRESS_SPACE:
        raise UsageError(
            f"{option} {text!r}: expected ADDRESS:SIZE, for example 0x86000000:0x200000"
        )
    return found


def _parse_address(option: str, text: str) -> int:
    try:
        address = int(text, 0)
    except ValueError:
        address = -1
    if not 0 <= address < ADDRESS_SPACE:
        raise UsageError(f"{option} {text!r}: expected ADDRESS, such as 0xfa00000")
    return address


@contextmanager
def opened_target(
    spec: str,
    vmcoreinfo: Path | None,
    memory_map: str | None,
    *,
    progress: bool = True,
) -> Iterator[Target]:
    """
    Open a target for the body of a ``with`` statement.

    :param progress: As for :func:`held_back_warnings`.
    """
    damaged = click.get_current_context().meta[_DAMAGED]
    with (
        held_back_warnings(progress=progress),
        open_target(
            spec, vmcoreinfo=vmcoreinfo, memory_map=memory_map, damaged=damaged
        ) as target,
    ):
        yield target
