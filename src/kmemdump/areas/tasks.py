# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks: all of them in a list, and the first one in detail."""

from drgn import Program

from kmemdump.areas.area import area
from kmemdump.kernel.task_list import all_tasks
from kmemdump.questions.objects import each

__all__ = ["TASKS"]


def task_lists(prog: Program) -> None:
    """The lists of tasks and their threads, which gdb's command ``tasks`` walks."""
    kind = prog.type("struct task_struct")
    names = ("tasks", "thread_node", "signal", "exit_state", "thread_info")
    members = [name for name in names if kind.has_member(name)]
    for task in each("tasks", all_tasks(prog)):
        for member in members:
            task.member_(member).read_()


TASKS = area(
    "tasks",
    "all tasks; files and memory map of the first",
    "ps",
    "ps -t",
    "task 1",
    "sig 1",
    "files 1",
    "vm 1",
    task_lists,
    variables=("init_task",),
)
