# SPDX-License-Identifier: GPL-2.0-or-later
"""
Options from TOML files: those in the usual places, and the one that ``--config`` names.

An option before any table is for every verb that has it; one in a table ``[VERB]`` is
for that verb. ``check`` rehearses what ``watch`` will do, so it takes what a table
``[watch]`` says of that, unless a table of its own says something else. A later file
overrides an earlier one; the command line, all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from kmemdump.cli.shared.wrong_use import describe_number
from kmemdump.errors import UnsupportedError, UsageError
from kmemdump.text import no_such
from kmemdump.user_folders import user_folder

__all__ = ["config_option", "read_usual_places", "usual_places"]

_MAX_BYTES = 1 << 20
_REHEARSED = {"check": "watch"}
"""What a verb rehearses, whose table it takes, too."""
_WHICH_VMS = frozenset(("libvirt", "name", "metadata"))
"""Options of that table that it does not take: they are no part of what is done."""
_HEADER = re.compile(r"\s*\[\s*[\"']?([\w-]+)[\"']?\s*\]")


def usual_places(environ: Mapping[str, str]) -> list[Path]:
    """Return the files that may hold options; a later file overrides an earlier one."""
    places = [Path("/etc/kmemdump.toml")]
    with suppress(UnsupportedError):  # A user without a home.
        places.append(user_folder(environ, "CONFIG") / "config.toml")
    return places


def config_option() -> click.Option:
    """Return ``--config FILE``, which every verb has."""
    return click.Option(
        ["--config"],
        type=click.Path(path_type=Path),
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_read_named,
        help="Take options from this TOML file: area = ['kmsg'], and so on.",
    )


def read_usual_places(context: click.Context) -> None:
    """
    Let a verb take options from the files in the usual places, if there are any.

    :param context: The program's own.
    """
    verb = context.invoked_subcommand
    if verb is None or verb not in _verbs(context):
        return
    found: dict[str, Any] = {}
    for path in usual_places(os.environ):
        try:
            there = path.is_file()
        except OSError:
            there = False  # No access: another user's home.
        if there:
            found |= _options(context, path, verb)
    if found:
        command = _program(context).get_command(context, verb)
        context.default_map = {verb: _shaped(command, found)}


def _read_named(
    context: click.Context, _parameter: click.Parameter, path: Path | None
) -> None:
    if path is not None:
        before = context.default_map or {}
        found = _options(context, path, context.info_name or "")
        shaped = _shaped(context.command, found)
        both = before.keys() & shaped.keys()
        merged = {
            name: {**before[name], **shaped[name]}
            for name in both
            if isinstance(shaped[name], dict)
        }
        context.default_map = {**before, **shaped, **merged}


def _shaped(
    command: click.Command | None, found: Mapping[str, Any]
) -> MutableMapping[str, Any]:
    """Return options as a verb takes them: one with parts, for each part."""
    if not isinstance(command, click.Group):
        return dict(found)
    return {
        name: {it.name: found[it.name] for it in part.params if it.name in found}
        for name, part in command.commands.items()
    }


def _options(context: click.Context, path: Path, verb: str) -> dict[str, Any]:
    """Return a verb's options from a file, by their parameters' names."""
    verbs = _verbs(context)
    content = _parse(path)
    # "ask" is a verb, with a table, and an option of others.
    tables = {
        name: value
        for name, value in content.items()
        if name in verbs and isinstance(value, dict)
    }
    known = _known(context, verb)
    found: dict[str, Any] = {}
    for name, value in content.items():
        if name in tables:
            continue
        if name in known:
            found |= _one(_place(path, name), known, name, value)
        elif not any(name in _known(context, other) for other in verbs):
            if name in verbs:
                raise UsageError(
                    f"{_place(path, name)}: {name} is a verb, expected a table [{name}]"
                )
            raise UsageError(
                f"{_place(path, name)}: {no_such('option', name, known)}; "
                f"there are {', '.join(known)}"
            )
    own: dict[str, Any] = {}
    for other, table in tables.items():
        options = _known(context, other)
        for name, value in table.items():
            if name not in options:
                raise UsageError(
                    f"{_place(path, name, other)}: [{other}]: "
                    f"{no_such('option', name, options)}; "
                    f"there are {', '.join(options)}"
                )
            one = _one(_place(path, name, other), options, name, value)
            if other == verb:
                own |= one
            elif other == _REHEARSED.get(verb) and name in known.keys() - _WHICH_VMS:
                found |= one
    return found | own


def _parse(path: Path) -> dict[str, Any]:
    import tomllib  # Most users have no such file.

    try:
        return tomllib.loads(_read(path))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"{path}: {str(error).replace('end of document', 'its end')}, expected "
            "NAME = VALUE, with text in quotes"
        ) from error


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: {error}") from error


def _place(path: Path, name: str, table: str | None = None) -> str:
    """Return a file with the line of an option, for messages."""
    inside: str | None = None
    for number, line in enumerate(_read(path).splitlines(), 1):
        if header := _HEADER.match(line):
            inside = header[1]
        key = line.partition("=")[0].strip().strip("\"'")
        if key == name and inside == table:
            return f"{path}, line {number}"
    return str(path)


def _program(context: click.Context) -> click.Group:
    program = context.find_root().command
    assert isinstance(program, click.Group)
    return program


def _verbs(context: click.Context) -> list[str]:
    return _program(context).list_commands(context)


def _known(context: click.Context, verb: str) -> dict[str, click.Option]:
    command = _program(context).get_command(context, verb)
    parts = command.commands.values() if isinstance(command, click.Group) else ()
    return {
        option.removeprefix("--"): parameter
        for one in (command, *parts)
        for parameter in (one.params if one else ())
        if isinstance(parameter, click.Option) and parameter.name != "config"
        for option in parameter.opts
        if option.startswith("--")
    }


def _one(
    place: str, known: Mapping[str, click.Option], name: str, value: object
) -> dict[str, Any]:
    option = known[name]
    if option.multiple and not isinstance(value, list):
        raise UsageError(f"{place}: {name} is {value!r}, expected a list")
    if option.is_flag and not isinstance(value, bool):
        raise UsageError(f"{place}: {name} is {value!r}, expected true or false")
    if isinstance(value, list) and not option.multiple:
        raise UsageError(f"{place}: {name} is {value!r}, expected one value")
    if option.metavar == "SIZE" and type(value) is int:
        value = str(value)  # Bytes.
    for item in value if isinstance(value, list) else [value]:
        problem = _wrong_type(option, item)
        if problem is not None:
            raise UsageError(f"{place}: {name} is {item!r}, expected {problem}")
        try:
            option.type.convert(item, option, None)
        except click.BadParameter as error:
            expected = describe_number(option)
            why = f"expected {expected}" if expected else error.message.rstrip(".")
            raise UsageError(f"{place}: {name} is {item!r}, {why}") from error
    key = option.name or name
    # One of several flags of a parameter: --json, --mail.
    if option.is_flag and isinstance(option.flag_value, str):
        return {key: option.flag_value} if value else {}
    return {key: value}


def _wrong_type(option: click.Option, item: object) -> str | None:
    """Return what was expected, where TOML has something else."""
    if option.is_flag:
        return None
    if isinstance(option.type, click.types.IntParamType):
        right: object = isinstance(item, int) and not isinstance(item, bool)
        return None if right else describe_number(option) or "a whole number"
    if isinstance(option.type, click.types.FloatParamType):
        right = isinstance(item, int | float) and not isinstance(item, bool)
        return None if right else describe_number(option) or "a number"
    return None if isinstance(item, str) else "text in quotes"
