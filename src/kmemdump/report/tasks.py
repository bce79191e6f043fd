# SPDX-License-Identifier: GPL-2.0-or-later
"""Sections of a report: all tasks, and those that are blocked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from drgn import Object, Program
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.sched import task_cpu, task_state_to_char

from kmemdump.diagnosis.records import Task
from kmemdump.kernel.limits import MAX_TASKS
from kmemdump.kernel.optional import ABSENT, optional
from kmemdump.report.records import BlockedTask
from kmemdump.report.sections import reason
from kmemdump.report.stacks import find_frames
from kmemdump.report.system import decode

__all__ = ["all_tasks", "blocked_tasks", "make_blocked_task", "make_task"]

_MAX_BLOCKED = 100


def make_task(task: Object, *, state: bool = True) -> Task:
    """
    Return the record of a task.

    :param task: ``struct task_struct *``
    :param state: Whether to read its state, too.
    """
    return Task(
        pid=task.pid.value_(),
        comm=decode(task.comm.string_()),
        state=optional(lambda: task_state_to_char(task)) if state else None,
        cpu=optional(lambda: task_cpu(task)),
    )


def all_tasks(prog: Program) -> Iterator[Object]:
    """Yield all tasks, ordered by process id."""
    yield from islice(for_each_task(prog), MAX_TASKS)


def blocked_tasks(prog: Program) -> Iterator[Object]:
    """Yield the tasks in state D."""
    blocked = (task for task in all_tasks(prog) if task_state_to_char(task) == "D")
    yield from islice(blocked, _MAX_BLOCKED)


def make_blocked_task(task: Object) -> BlockedTask:
    """Return the record of a blocked task, with its stack."""
    record = make_task(task)
    try:
        stack = find_frames(task)
    except ABSENT as error:
        return BlockedTask(record, problem=reason(error))
    return BlockedTask(record, stack.frames, stack.problem)
