# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks: all of them in a list, and the first one in detail."""

from drgn import Program
from drgn.helpers.linux.pid import for_each_task

from kmemdump.areas.area import area

__all__ = ["TASKS"]

_MAX_TASKS = 1 << 17


def task_lists(prog: Program) -> None:
    """The lists of tasks and their threads, by which gdb's command ``tasks`` goes."""
    for count, task in enumerate(for_each_task(prog)):
        if count >= _MAX_TASKS:
            break
        for member in ("tasks", "thread_node", "signal", "exit_state", "thread_info"):
            task.member_(member).read_()


TASKS = area(
    "tasks",
    "all tasks; files, memory map and signals of the first",
    "ps",
    "task 1",
    "sig 1",
    "files 1",
    "vm 1",
    task_lists,
    variables=("init_task",),
)
