# SPDX-License-Identifier: GPL-2.0-or-later
"""What of stacks is in a core image."""

from pathlib import Path

from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.sched import task_on_cpu

from kmemdump import open_core
from rigs.scenarios import each_architecture


@each_architecture
def test_what_sleeping_tasks_have_on_their_stacks(core_image: Path) -> None:
    """Unwinding by debug info reads more of it than unwinding without."""
    with open_core(core_image) as core:
        prog = core.prog
        size = prog["THREAD_SIZE"].value_()
        tasks = [task for task in for_each_task(prog) if not task_on_cpu(task)]
        assert len(tasks) >= 200
        for task in tasks:
            pointer = prog.stack_trace(task)[0].sp
            assert prog.read(pointer, task.stack.value_() + size - pointer)
