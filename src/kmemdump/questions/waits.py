# SPDX-License-Identifier: GPL-2.0-or-later
"""The question ``waits``: which lock each blocked task waits for, and who holds it."""

from __future__ import annotations

from contextlib import suppress

from drgn import Object, Program

from kmemdump.kernel.lock_waits import find_lock_waits
from kmemdump.kernel.symbol_names import plain_name
from kmemdump.questions.question import Question
from kmemdump.text import printable

__all__ = ["WAITS"]


def _put(prog: Program) -> None:
    for wait in find_lock_waits(prog):
        name = ""
        with suppress(LookupError):
            name = f" {plain_name(prog.symbol(wait.address).name)}"
        words = f"{_title(wait.task)} waits for {wait.kind}{name} at {wait.address:#x}"
        if wait.owner is not None:
            held = "held" if wait.sure else "last known to be held"
            words += f", {held} by {_title(wait.owner)}"
        print(words)


def _title(task: Object) -> str:
    comm = printable(task.comm.string_().decode("utf-8", "replace"))
    return f"PID {task.pid.value_()} ({comm})"


WAITS = Question("waits", _put)
