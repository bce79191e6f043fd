# SPDX-License-Identifier: GPL-2.0-or-later
"""Sections of a report: all tasks, those that are blocked, and their stacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from drgn import Object, Program
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.sched import task_cpu, task_on_cpu, task_state_to_char

from kmemdump.diagnosis.records import Task
from kmemdump.kernel.limits import MAX_TASKS
from kmemdump.kernel.optional import ABSENT, optional
from kmemdump.report.records import BlockedTask, StackGroup
from kmemdump.report.sections import reason
from kmemdump.report.stacks import find_frames
from kmemdump.report.system import decode

__all__ = [
    "all_tasks",
    "blocked_tasks",
    "group_stacks",
    "make_blocked_task",
    "make_task",
    "sleeping_tasks",
]

_MAX_BLOCKED = 100
_MAX_STACKS = 2000


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


def sleeping_tasks(prog: Program) -> Iterator[Object]:
    """Yield the tasks that run on no CPU, and so have a stack of their own."""
    sleeping = (task for task in all_tasks(prog) if not _runs(task))
    yield from islice(sleeping, _MAX_STACKS)


def _runs(task: Object) -> bool:
    return bool(optional(lambda: task_on_cpu(task)))


def group_stacks(stacks: Iterable[BlockedTask]) -> tuple[StackGroup, ...]:
    """Return the tasks that have the same functions on their stacks, as groups."""
    groups: dict[tuple[str, ...], list[BlockedTask]] = {}
    for item in stacks:
        if item.frames and item.problem is None:
            places = tuple(frame.place for frame in item.frames)
            groups.setdefault(places, []).append(item)
    found = (
        StackGroup(tuple(item.task for item in group), group[0].frames)
        for group in groups.values()
    )
    return tuple(sorted(found, key=lambda group: -len(group.tasks)))


def make_blocked_task(task: Object) -> BlockedTask:
    """Return the record of a blocked task, with its stack."""
    record = make_task(task)
    try:
        stack = find_frames(task)
    except ABSENT as error:
        return BlockedTask(record, problem=reason(error))
    return BlockedTask(record, stack.frames, stack.problem)
