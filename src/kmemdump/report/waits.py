# SPDX-License-Identifier: GPL-2.0-or-later
"""Section of a report: which task waits for which, and which locks tasks hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from drgn import Object, Program

from kmemdump.kernel.held_locks import awaited_locks, has_lockdep, held_locks
from kmemdump.kernel.lock_waits import LockWait
from kmemdump.kernel.symbol_at import find_symbol, place_of_code
from kmemdump.kernel.task_list import all_tasks
from kmemdump.report.lock_lines import order_waits
from kmemdump.report.records import HeldLock, Wait
from kmemdump.report.tasks import make_task

__all__ = ["find_locks", "join_waits", "make_locks", "make_wait"]


def make_wait(found: LockWait) -> Wait:
    """Return the record of a task that waits for a lock."""
    name, offset, module = find_symbol(found.task.prog_, found.address)
    if name is not None:
        name += f"+{offset:#x}" if offset else ""
        name += f" [{module}]" if module else ""
    return Wait(
        make_task(found.task),
        found.kind,
        None if found.owner is None else make_task(found.owner),
        found.address,
        name,
        found.sure,
    )


def find_locks(prog: Program) -> Iterator[tuple[Object, Mapping[int, range]]]:
    """Yield the tasks, if the kernel notes their locks, for :func:`make_locks`."""
    if has_lockdep(prog):
        awaited = awaited_locks(prog)
        for task in all_tasks(prog, idle=True):
            yield task, awaited


def make_locks(found: tuple[Object, Mapping[int, range]]) -> list[HeldLock]:
    """Return the records of a task's locks."""
    task, awaited = found
    locks = held_locks(task, awaited)
    if not locks:
        return []
    record, prog = make_task(task), task.prog_
    return [
        HeldLock(record, it.name, place_of_code(prog, it.code), it.address, it.waiting)
        for it in locks
    ]


def join_waits(memory: Sequence[Wait], log: Sequence[Wait]) -> tuple[Wait, ...]:
    """Return what memory shows, and what the log says of other tasks."""
    known = {wait.waiter.pid for wait in memory}
    return order_waits([*memory, *(w for w in log if w.waiter.pid not in known)])
