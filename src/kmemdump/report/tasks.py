# SPDX-License-Identifier: GPL-2.0-or-later
"""Sections of a report: all tasks, and those that are blocked."""

from __future__ import annotations

from itertools import islice

from drgn import Object, Program
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.sched import task_cpu, task_state_to_char

from kmemdump.diagnosis.records import Task
from kmemdump.kernel.limits import MAX_TASKS
from kmemdump.kernel.optional import ABSENT
from kmemdump.report.records import BlockedTask
from kmemdump.report.sections import reason
from kmemdump.report.stacks import find_frames
from kmemdump.report.system import decode

__all__ = ["find_blocked", "find_tasks", "make_task"]

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
        state=task_state_to_char(task) if state else None,
        cpu=task_cpu(task),
    )


def find_tasks(prog: Program) -> tuple[Task, ...]:
    """Return all tasks, ordered by process id."""
    return tuple(make_task(task) for task in islice(for_each_task(prog), MAX_TASKS))


def find_blocked(prog: Program) -> tuple[BlockedTask, ...]:
    """Return the tasks in state D, with their stacks."""
    tasks = islice(for_each_task(prog), MAX_TASKS)
    blocked = (task for task in tasks if task_state_to_char(task) == "D")
    return tuple(_blocked(task) for task in islice(blocked, _MAX_BLOCKED))


def _blocked(task: Object) -> BlockedTask:
    record = make_task(task)
    try:
        stack = find_frames(task)
    except ABSENT as error:
        return BlockedTask(record, problem=reason(error))
    return BlockedTask(record, stack.frames, stack.problem)
