# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks: all of them in a list, and the first one in detail."""

from itertools import islice

from drgn import Program
from drgn.helpers.linux.pid import for_each_task

from kmemdump.areas.area import area
from kmemdump.kernel.limits import MAX_TASKS

__all__ = ["TASKS"]


def task_lists(prog: Program) -> None:
    """The lists of tasks and their threads, which gdb's command ``tasks`` walks."""
    kind = prog.type("struct task_struct")
    names = ("tasks", "thread_node", "signal", "exit_state", "thread_info")
    members = [name for name in names if kind.has_member(name)]
    for task in islice(for_each_task(prog), MAX_TASKS):
        for member in members:
            task.member_(member).read_()


TASKS = area(
    "tasks",
    "all tasks; files, memory map and signals of the first",
    "ps",
    "ps -t",
    "task 1",
    "sig 1",
    "files 1",
    "vm 1",
    task_lists,
    variables=("init_task",),
)
