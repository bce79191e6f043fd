# SPDX-License-Identifier: GPL-2.0-or-later
"""
What the shell completes.

Where we know no words, the shell goes on as it would without us, with file names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import click
from click.shell_completion import CompletionItem

__all__ = ["complete_area", "complete_as_shells_do", "complete_question"]

_MAX_ENTRIES = 10_000
"""Maximum of a folder's entries to complete with."""


class _Text(click.types.StringParamType):
    """Text that may be the path of a file, also after the kind of a target."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        kind, colon, path = incomplete.partition(":")
        # bash completes what follows the colon as a word of its own.
        if not colon or not kind.isalpha():
            return [_file(incomplete)]
        folder = Path(path) if path.endswith("/") else Path(path).parent
        with contextlib.suppress(OSError):
            found = islice(folder.iterdir(), _MAX_ENTRIES)
            names = [f"{it}/" if it.is_dir() else str(it) for it in found]
            return [
                CompletionItem(f"{kind}:{name}")
                for name in sorted(names)
                if name.startswith(path)
            ]
        return []


_TEXT = _Text()


def complete_as_shells_do(command: click.Command) -> None:
    """Let file names be completed wherever a verb takes any text."""
    parts = command.commands.values() if isinstance(command, click.Group) else ()
    for one in (command, *parts):
        for parameter in one.params:
            if parameter.type is click.STRING:
                parameter.type = _TEXT


def complete_area(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of an area, with a sign before it or none, or a file."""
    from kmemdump.areas import AREAS

    sign = incomplete[:1] if incomplete[:1] in ("+", "-") else ""
    return _words(incomplete, (f"{sign}{area.name}" for area in AREAS))


def complete_question(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the first word of a question, or a file of questions."""
    from kmemdump.questions.drgn_internals import command_names

    return _words(incomplete, command_names())


def _words(incomplete: str, words: Iterable[str]) -> list[CompletionItem]:
    # First the file: in bash, it replaces what comes before it.
    found = sorted(word for word in words if word.startswith(incomplete))
    return [_file(incomplete), *map(CompletionItem, found)]


def _file(incomplete: str) -> CompletionItem:
    return CompletionItem(incomplete, type="file")
