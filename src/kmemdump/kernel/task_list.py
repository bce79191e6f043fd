# SPDX-License-Identifier: GPL-2.0-or-later
"""
All tasks of a kernel, found again at each look by what changed since the last one.

The tasks are in a tree of process ids. A node of it, and an id, that are as they were
lead to the same tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

from drgn import FaultError, Object, Program
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.pid import for_each_task as drgn_for_each_task
from drgn.helpers.linux.pid import pid_task
from drgn.helpers.linux.sched import idle_task

from kmemdump.kernel.limits import MAX_TASKS
from kmemdump.memory.recorder import Recorder, current_recorder

__all__ = ["all_tasks"]

_NODE = 2
"""Lowest bits of a node's entry (xa_is_node(), Linux include/linux/xarray.h)."""
_NODE_BITS = 3
_LEAST_NODE = 4096
_MAX_DEPTH = 11
"""A node has 6 bits of an index of 64."""


def all_tasks(prog: Program, *, idle: bool = False) -> Iterator[Object]:
    """
    Yield all tasks, as drgn's ``for_each_task()`` does, in the same order.

    :param idle: Whether to yield each online CPU's idle task, too.
    """
    recorder = current_recorder()
    if recorder is None:
        yield from drgn_for_each_task(prog, idle=idle)
        return
    if idle:
        yield from recorder.memo("idle tasks", lambda: _idle_tasks(prog))
    try:
        found = recorder.memo("tasks", lambda: _tasks(prog, recorder))
    except (FaultError, ValueError):
        yield from drgn_for_each_task(prog)  # As far as it goes.
        return
    yield from found


def _idle_tasks(prog: Program) -> list[Object]:
    return [idle_task(prog, cpu) for cpu in for_each_online_cpu(prog)]


def _tasks(prog: Program, recorder: Recorder) -> list[Object]:
    try:
        entry = prog["init_pid_ns"].idr.idr_rt.xa_head.read_()
    except AttributeError:  # Until v4.19.
        return list(drgn_for_each_task(prog))
    kind = prog.type("struct pid *")
    node = prog.type("struct xa_node *")
    which = prog["PIDTYPE_PID"].value_()

    def task_of(address: int) -> Object | None:
        found = pid_task(Object(prog, kind, address), which)
        return found if found else None

    def entries_of(address: int) -> list[int]:
        found = Object(prog, node, address - _NODE)
        found.shift.read_()  # Others need it.
        return list(found.slots.value_())

    def known_entries_of(value: int) -> list[int]:
        return recorder.memo(("pid node", value), partial(entries_of, value))

    tasks = (
        recorder.memo(("pid", value), partial(task_of, value))
        for value in leaves(entry.value_(), known_entries_of)
    )
    return list(islice((task for task in tasks if task is not None), MAX_TASKS))


def leaves(root: int, entries_of: Callable[[int], Iterable[int]]) -> Iterator[int]:
    """
    Yield the entries of a tree of process ids that are no nodes.

    :param entries_of: Returns the entries of a node.
    :raises ValueError: If it is no tree.
    """
    seen = set[int]()

    def walk(value: int, depth: int) -> Iterator[int]:
        if _is_node(value):
            if depth == _MAX_DEPTH:
                raise ValueError(f"the tree of process ids is deeper than {_MAX_DEPTH}")
            # Nothing is read for what is remembered, so that no limit would count it.
            if value in seen:
                raise ValueError("the tree of process ids has a node twice")
            seen.add(value)
            for entry in entries_of(value):
                yield from walk(entry, depth + 1)
        elif value and value & _NODE_BITS != _NODE:
            yield value

    return walk(root, 0)


def _is_node(value: int) -> bool:
    return value & _NODE_BITS == _NODE and value > _LEAST_NODE
