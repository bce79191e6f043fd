# SPDX-License-Identifier: GPL-2.0-or-later
"""The pointers that a crash kernel follows: to the current task of each CPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice

from drgn import Program, offsetof, sizeof
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.mm import follow_phys
from drgn.helpers.linux.percpu import per_cpu

from kmemdump.formats.followed import Followed
from kmemdump.kernel.limits import MAX_CPUS

__all__ = ["find_followed"]

_logger = logging.getLogger(__name__)


def find_followed(prog: Program) -> list[Followed]:
    """Return the pointers; none if the kernel does not say where they are."""
    try:
        return list(islice(_current_tasks(prog), MAX_CPUS))
    except Exception as error:  # drgn's helpers may raise any on live memory.
        _logger.info("current tasks are not followed: %s", error)
        return []


def _current_tasks(prog: Program) -> Iterator[Followed]:
    task = prog.type("struct task_struct")
    sizes = sizeof(task), offsetof(task, "stack"), prog["THREAD_SIZE"].value_()
    mm = prog["init_mm"].address_of_()
    for cpu in for_each_possible_cpu(prog):
        pointer = per_cpu(prog["runqueues"], cpu).curr
        yield Followed(follow_phys(mm, pointer.address_).value_(), *sizes)
