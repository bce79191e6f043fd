# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions as a user types them: crash commands, and functions in a Python file."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from drgn import Program

from kmemdump.errors import UsageError
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import Question, explain

__all__ = ["load_module", "load_questions", "parse_question", "parse_questions"]


def parse_question(text: str) -> list[Question]:
    """
    Return the questions that a user typed: a crash command, or those in ``FILE.py``.

    :raises UsageError: If *text* is neither.
    """
    if text.endswith(".py"):
        return load_questions(Path(text))
    return [command(text, trusted=True)]


def parse_questions(items: Iterable[str | Question]) -> list[Question]:
    """
    Return all questions; those that are text are parsed.

    :raises UsageError: If an item is not a question.
    """
    found: list[Question] = []
    for item in items:
        found += [item] if isinstance(item, Question) else parse_question(item)
    return found


def load_module(path: Path) -> ModuleType:
    """
    Run a Python file that a user named, as a module that cannot be imported.

    :raises UsageError: If it cannot be run.
    """
    name = f"kmemdump_questions_{path.stem}"  # Hides no other module.
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: not a Python file; expected FILE.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Dataclasses, for example, look it up there.
    try:
        spec.loader.exec_module(module)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except (Exception, SystemExit) as error:
        _add_line(error, path)
        raise UsageError(f"{path}: {explain(error)}") from error
    return module


def load_questions(path: Path) -> list[Question]:
    """
    Load questions from a Python file that a user named.

    Each public function with one parameter, the :class:`drgn.Program`, is a question.

    :raises UsageError: If the file cannot be run, or contains no question.
    """
    module = load_module(path)
    found = [
        Question(f"{path.name}:{name}", _located(item, path), repeatable=False)
        for name, item in vars(module).items()
        if inspect.isfunction(item)
        and item.__module__ == module.__name__
        and not name.startswith("_")
        and len(inspect.signature(item).parameters) == 1
    ]
    if not found:
        raise UsageError(
            f"{path}: no question; expected functions of one parameter, prog"
        )
    return found


def _located(item: Callable[[Program], None], path: Path) -> Callable[[Program], None]:
    def put(prog: Program) -> None:
        try:
            item(prog)
        except Exception as error:
            _add_line(error, path)
            raise

    return put


def _add_line(error: BaseException, path: Path) -> None:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == str(path):
            error.add_note(f"{path}, line {frame.lineno}")
            return
