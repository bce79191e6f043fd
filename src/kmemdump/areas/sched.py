# SPDX-License-Identifier: GPL-2.0-or-later
"""The scheduler: run queues, the task on each CPU, load."""

from drgn import Program
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.percpu import per_cpu

from kmemdump.areas.area import area, read_bytes

__all__ = ["SCHED"]


def run_queues(prog: Program) -> None:
    """Each CPU's ``struct rq``, and the task that runs there."""
    for cpu in for_each_possible_cpu(prog):
        queue = per_cpu(prog["runqueues"], cpu)
        read_bytes(prog, queue.address_, queue.type_.size, 1 << 20)
        for task in (queue.curr.read_(), queue.idle.read_()):
            read_bytes(prog, task.value_(), task.type_.type.size, 1 << 16)
        per_cpu(prog["hrtimer_bases"], cpu).read_()


SCHED = area(
    "sched",
    "run queues, current tasks, load",
    "runq",
    run_queues,
    variables=("avenrun", "root_task_group"),
)
