# SPDX-License-Identifier: GPL-2.0-or-later
"""
Section of a report: which task waits for which, and which locks are held, by the log.

The hung-task detector names the holder of a lock since Linux kernel commit 3cf67d61ff98
("hung_task: show the blocker task if the task is hung on mutex") (in v6.15); lockdep
(CONFIG_LOCKDEP) lists what each task holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kmemdump.diagnosis.records import Task
from kmemdump.kernel.printk import LogRecord
from kmemdump.report.records import HeldLock, Wait

__all__ = ["held_locks_in_log", "order_waits", "waits_in_log"]

_KERNEL = 0
_MAX_ITEMS = 1000
_WAIT = re.compile(
    r"INFO: task (.{1,64}):(\d{1,10}) (?:is |<\w{1,20}> )?blocked on an? ([\w-]+)"
    r"(?:(?: likely)?(?: last)? (?:owned|held|taken)(?: \w+)? by"
    r" task (.{1,64}):(\d{1,10})"
    r"|.*owner.*not found)"
)
_HOLDER = re.compile(
    r"(?:\d+ locks?|no locks?) held by (.{1,64})/(\d{1,10})(?:/\d+)?[:.]"
)
_LOCK = re.compile(r" #\d+: (?:[0-9a-f]{8,16} )?\((.{1,200}?)\)\{[^}]*\}.*?, at: (\S+)")


def waits_in_log(log: Sequence[LogRecord]) -> tuple[Wait, ...]:
    """Return who waits for whom, the last that the log says of each task."""
    found: dict[int, Wait] = {}
    for line in _own(log):
        if match := _WAIT.match(line):
            owner = Task(int(match[5]), match[4]) if match[5] else None
            waiter = Task(int(match[2]), match[1])
            found[waiter.pid] = Wait(waiter, match[3], owner)
    return order_waits(list(found.values()))


def order_waits(waits: Sequence[Wait]) -> tuple[Wait, ...]:
    """Return waits so that chains stand together: who waits, then who is awaited."""
    by_waiter = {wait.waiter.pid: wait for wait in waits[:_MAX_ITEMS]}
    awaited = {wait.owner.pid for wait in waits if wait.owner is not None}
    heads = [pid for pid in by_waiter if pid not in awaited]
    ordered: dict[int, Wait] = {}
    # Who is left after the heads waits in a circle: a deadlock.
    for head in [*heads, *by_waiter]:
        pid: int | None = head
        while pid in by_waiter and pid not in ordered:
            assert pid is not None
            wait = ordered[pid] = by_waiter[pid]
            pid = wait.owner.pid if wait.owner else None
    return tuple(ordered.values())


def held_locks_in_log(log: Sequence[LogRecord]) -> tuple[HeldLock, ...]:
    """Return the locks that lockdep listed, from its last list of each task."""
    found: dict[int, list[HeldLock]] = {}
    task: Task | None = None
    for line in _own(log):
        if match := _HOLDER.match(line):
            task = Task(int(match[2]), match[1])
            found[task.pid] = []
        elif task is not None and (match := _LOCK.match(line)):
            found[task.pid].append(HeldLock(task, match[1], match[2]))
    locks = [lock for held in found.values() for lock in held]
    return tuple(locks[:_MAX_ITEMS])


def _own(log: Sequence[LogRecord]) -> Iterator[str]:
    for record in log:
        if record.facility == _KERNEL:
            yield from record.text.split("\n")
