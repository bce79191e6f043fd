# SPDX-License-Identifier: GPL-2.0-or-later
"""The question ``locks``: which locks each task holds, as lockdep prints them."""

from __future__ import annotations

from drgn import Program

from kmemdump.kernel.held_locks import (
    awaited_locks,
    has_lockdep,
    held_locks,
    lockdep_stopped,
)
from kmemdump.kernel.symbol_at import place_of_code
from kmemdump.kernel.task_list import all_tasks
from kmemdump.questions.objects import each
from kmemdump.questions.question import Question
from kmemdump.text import printable

__all__ = ["LOCKS"]


def _put(prog: Program) -> None:
    if not has_lockdep(prog):
        print("the kernel notes no locks: it was built without CONFIG_LOCKDEP")
        return
    if lockdep_stopped(prog):
        print(
            "lockdep has stopped, as it does at its first report, an oops and a panic: "
            "these were the locks then"
        )
    awaited = awaited_locks(prog)
    for task in each("tasks", all_tasks(prog, idle=True)):
        locks = held_locks(task, awaited)
        if not locks:
            continue
        comm = printable(task.comm.string_().decode("utf-8", "replace"))
        count = f"{len(locks)} lock{'s' if len(locks) > 1 else ''}"
        print(f"{count} held by {comm}/{task.pid.value_()}:")
        for number, lock in enumerate(locks):
            place = place_of_code(prog, lock.code)
            waiting = " (waits for it)" if lock.waiting else ""
            print(
                f" #{number}: {lock.address:016x} ({lock.name}){lock.usage}, "
                f"at: {place}{waiting}"
            )


LOCKS = Question("locks", _put)
