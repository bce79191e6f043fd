# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions that are typed: on a terminal with history and completion, or piped."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kmemdump.cli.shared.messages import print_message
from kmemdump.errors import UnsupportedError, UsageError
from kmemdump.user_folders import user_folder

if TYPE_CHECKING:
    from kmemdump.kernel.attach import Kernel
    from kmemdump.questions.prompt import Prompt
    from kmemdump.questions.question import Question

__all__ = ["typed", "with_python"]

_PROMPT = "kmemdump> "
_MORE = "........> "
_MOST_LINES = 2000
"""Maximum lines of the history."""


def typed(kernel: Kernel, talking: bool) -> Iterator[Question | None]:
    """
    Yield each question that a person types; ``None`` for text that is not one.

    :param talking: Whether the person is at a terminal.
    """
    from kmemdump.questions.prompt import Prompt

    prompt = Prompt(kernel.prog)
    with _edited(prompt) if talking else contextlib.nullcontext():
        while True:
            try:
                text = input(_PROMPT if talking else "").strip()
                if text in ("exit", "quit", "q"):
                    return
                yield from _parse(prompt, text, talking)
            except EOFError:
                if talking:
                    click.echo()
                return
            except KeyboardInterrupt:
                if not talking:
                    raise
                click.echo()  # As in a shell, the line is dropped.


def with_python(
    kernel: Kernel, given: Iterable[Question | str]
) -> Iterator[Question | None]:
    """Yield the questions that are given; a text is Python."""
    from kmemdump.questions.prompt import Prompt

    for item in given:
        if isinstance(item, str):
            yield from _parse(Prompt(kernel.prog), item, talking=False)
        else:
            yield item


def _parse(prompt: Prompt, text: str, talking: bool) -> list[Question | None]:
    from kmemdump.questions.parse import parse_question

    if not text or text.startswith("#"):
        return []
    try:
        if text.endswith(".py"):
            return [*parse_question(text)]
        return [prompt.question(text, lambda: input(_MORE if talking else ""))]
    except UsageError as error:
        print_message(str(error))
        return [None]


@contextlib.contextmanager
def _edited(prompt: Prompt) -> Iterator[None]:
    """Give ``input()`` a history, which is kept, and completion."""
    try:
        import readline
    except ImportError:  # This Python lacks it: no history, no completion.
        yield
        return
    found: list[str] = []

    def complete(text: str, state: int) -> str | None:
        nonlocal found
        if state == 0:
            before = readline.get_line_buffer()[: readline.get_begidx()]
            found = prompt.complete(text, before)
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    # A read-only home, or none: no history.
    with contextlib.suppress(OSError, UnsupportedError):
        readline.read_history_file(_history_path())
    try:
        yield
    finally:
        readline.set_history_length(_MOST_LINES)
        with contextlib.suppress(OSError, UnsupportedError):
            history = _history_path()
            history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            readline.write_history_file(history)


def _history_path() -> Path:
    return user_folder(os.environ, "STATE") / "history"
