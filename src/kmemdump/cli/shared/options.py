# SPDX-License-Identifier: GPL-2.0-or-later
"""
Options that several verbs share.

As in the verbs, modules that load drgn are imported where they are used, so that
``--help`` does not wait for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kmemdump.cli.shared.bounded import limit_options
from kmemdump.cli.shared.completion import complete_area
from kmemdump.cli.shared.messages import held_back_warnings, print_message
from kmemdump.errors import TruncatedError, UsageError
from kmemdump.memory.ranges import ADDRESS_SPACE, Range
from kmemdump.opening import open_target
from kmemdump.targets import Target

if TYPE_CHECKING:
    from kmemdump.marking.selection import Selection

__all__ = [
    "SelectionOptions",
    "TargetOptions",
    "core_option",
    "firmware_options",
    "grouped",
    "identity_option",
    "no_vmlinux_option",
    "opened_target",
    "parse_selection",
    "path_option",
    "range_option",
    "selection_options",
    "target_options",
    "vmcoreinfo_option",
    "vmlinux_option",
]


def grouped(
    function: Callable[..., Any],
    name: str,
    kind: Any,
    *options: Callable[[Any], Any],
) -> Callable[..., Any]:
    """
    Add options to a verb, as one parameter.

    :param name: Name of the parameter.
    :param kind: Its type, a named tuple with a field for each option. A field may also
        be another option of the verb.
    """

    @functools.wraps(function)
    def collected(*arguments: Any, **given: Any) -> Any:
        fields = {field: given.pop(field) for field in kind._fields if field in given}
        return function(*arguments, **given, **{name: kind(**fields)})

    for option in reversed(options):
        collected = option(collected)
    return collected


path_option = functools.partial(
    # That it cannot be read is said where it is read.
    click.option,
    type=click.Path(path_type=Path, readable=False),
    metavar="FILE",
)
core_option = path_option(
    "-o", "--output", required=True, metavar="CORE", help="The core image to write."
)
vmlinux_option = path_option(
    "--vmlinux", help="The kernel's debug file, used instead of kallsyms and BTF."
)
vmcoreinfo_option = path_option(
    "--vmcoreinfo", help="Text of VMCOREINFO, if the target does not hold it."
)


def _keep_keys(
    _context: click.Context, _option: click.Parameter, paths: tuple[Path, ...]
) -> tuple[Path, ...]:
    from kmemdump.sealing.library import keep_keys

    return tuple(keep_keys(path) for path in paths)


identity_option = click.option(
    "--identity",
    type=click.Path(path_type=Path),
    callback=_keep_keys,
    multiple=True,
    envvar="KMEMDUMP_IDENTITY",
    metavar="FILE",
    help="Private keys of age or ssh, for a sealed CORE. Also in KMEMDUMP_IDENTITY.",
)
_memory_map_option = click.option(
    "--memory-map",
    metavar="FIRST-LAST@OFFSET,…",
    help="Physical addresses in a raw RAM image; found by default.",
)


def _parse_range(
    _context: click.Context, option: click.Parameter, text: str | None
) -> Range | None:
    if text is None:
        return None
    address, _, size = text.partition(":")
    try:
        found = Range(int(address, 0), int(size, 0))
    except ValueError:
        found = Range(0, 0)
    if found.start < 0 or found.size <= 0 or found.end > ADDRESS_SPACE:
        raise UsageError(
            f"{option.opts[0]} {text!r}: expected ADDRESS:SIZE, for example "
            "0x86000000:0x200000"
        )
    return found


range_option = functools.partial(
    click.option, metavar="ADDRESS:SIZE", callback=_parse_range
)


class TargetOptions(NamedTuple):
    """How to read a target."""

    vmcoreinfo: Path | None
    memory_map: str | None
    damaged: bool
    identity: tuple[Path, ...]


def target_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--vmlinux``, and options to read a target, as parameter *reading*."""
    reading = grouped(
        function,
        "reading",
        TargetOptions,
        vmcoreinfo_option,
        _memory_map_option,
        click.option(
            "--damaged", is_flag=True, help="Use what is left of a truncated file."
        ),
        identity_option,
    )
    return vmlinux_option(limit_options(reading, vmlinux=True))


def firmware_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where firmware's tables are, as parameter *options*."""
    from kmemdump.collect.source import Options  # Few verbs need what it loads.

    return grouped(
        limit_options(function),
        "options",
        Options,
        range_option(
            "--smem", help="Range of SMEM in a machine's memory; found by default."
        ),
        click.option(
            "--kinfo",
            metavar="ADDRESS",
            callback=_parse_address,
            help="Address of a debug_kinfo there; found by default without SMEM.",
        ),
        _memory_map_option,
    )


class SelectionOptions(NamedTuple):
    """What to mark, as typed."""

    areas: tuple[str, ...]
    questions: tuple[str, ...]
    symbols: tuple[str, ...]
    regions: tuple[str, ...]
    vmlinux: Path | None


def _note_what_is_left_out(
    context: click.Context, option: click.Parameter, names: tuple[str, ...]
) -> tuple[str, ...]:
    """Say so if areas named on the command line replace the default ones."""
    source = context.get_parameter_source(option.name or "")
    # A configuration file is written with thought, and read each time.
    if names and source is click.core.ParameterSource.COMMANDLINE:
        from kmemdump.areas import AREAS, choose_areas

        # A file of areas adds to them, and is run only once.
        chosen = choose_areas(name for name in names if not name.endswith(".py"))
        out = [
            area.name
            for area in AREAS
            if area.default
            and not area.early
            and area not in chosen
            and f"-{area.name}" not in names
        ]
        if out:
            print_message(
                f"--area: only {', '.join(area.name for area in chosen)}; not "
                f"{', '.join(out)}, which are marked by default\n"
                "+NAME adds an area to the default ones"
            )
    return names


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what to mark, as *selected*, with the verb's vmlinux."""
    return grouped(
        function,
        "selected",
        SelectionOptions,
        click.option(
            "--area",
            "areas",
            multiple=True,
            metavar="NAME",
            shell_complete=complete_area,
            callback=_note_what_is_left_out,
            help="Mark only the areas that are named; +NAME adds one to the default "
            "areas, FILE.py those in it, -NAME leaves one out. Default: see 'areas'.",
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


no_vmlinux_option = click.option(
    "--no-vmlinux",
    is_flag=True,
    help="Do not search for a debug file of a kernel that lacks symbols or types.",
)


def parse_selection(
    selected: SelectionOptions,
    search: Mapping[str, str] | None = None,
    *,
    early: bool = False,
) -> Selection:
    """
    Parse what to mark.

    :param search: As in :class:`~kmemdump.marking.selection.Selection`.
    :param early: Whether the dump has only what was marked before.
    :raises UsageError: If one of the options makes no sense.
    """
    from kmemdump.marking.selection import select

    regions = [_parse_region(text) for text in selected.regions]
    given = {**selected._asdict(), "regions": regions, "search": search}
    return select(**given, early=early)


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


def _parse_address(
    _context: click.Context, option: click.Parameter, text: str | None
) -> int | None:
    if text is None:
        return None
    try:
        address = int(text, 0)
    except ValueError:
        address = -1
    if not 0 <= address < ADDRESS_SPACE:
        raise UsageError(
            f"{option.opts[0]} {text!r}: expected ADDRESS, such as 0xfa00000"
        )
    return address


@contextmanager
def opened_target(
    spec: str, reading: TargetOptions, *, progress: bool = True
) -> Iterator[Target]:
    """
    Open a target for the body of a ``with`` statement.

    :param progress: As for :func:`held_back_warnings`.
    """
    with held_back_warnings(progress=progress), ExitStack() as stack:
        try:
            target = stack.enter_context(open_target(spec, **reading._asdict()))
        except TruncatedError as error:
            options = click.get_current_context().command.params
            if not any(option.name == "damaged" for option in options):
                raise
            problem = f"{error.problem}\n--damaged goes on with the rest"
            raise TruncatedError(error.where, problem) from error
        yield target
