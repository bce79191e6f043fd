# SPDX-License-Identifier: GPL-2.0-or-later
"""Section of a report: which task waits for which, by memory and by the log."""

from __future__ import annotations

from collections.abc import Sequence

from kmemdump.kernel.lock_waits import LockWait
from kmemdump.report.lock_lines import order_waits
from kmemdump.report.records import Wait
from kmemdump.report.stacks import find_symbol
from kmemdump.report.tasks import make_task

__all__ = ["join_waits", "make_wait"]


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


def join_waits(memory: Sequence[Wait], log: Sequence[Wait]) -> tuple[Wait, ...]:
    """Return what memory shows, and what the log says of other tasks."""
    known = {wait.waiter.pid for wait in memory}
    return order_waits([*memory, *(w for w in log if w.waiter.pid not in known)])
