# SPDX-License-Identifier: GPL-2.0-or-later
"""What looks at a kernel cost, and which tasks that start after a look are marked."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from drgn import sizeof
from drgn.helpers.linux.pid import find_task

from kmemdump.kernel.attach import attach
from kmemdump.kernel.registered_regions import physical_ranges
from kmemdump.lab import Machine, PackageCache, Setup
from kmemdump.marking.capture import Capture, look
from kmemdump.marking.plan import plan
from kmemdump.marking.selection import select
from kmemdump.memory.ranges import Range, subtract
from kmemdump.opening import open_target
from kmemdump.watch.vm_marks import VmMarks

__all__ = ["LookFigures", "measure_looks"]

T = TypeVar("T")
_RUN = 20
"""Tasks that run between two looks."""
_ROWS = 199
"""Regions of a Qualcomm firmware's table that are left for marks."""
_WORK = f"i=0; while [ $i -lt {_RUN} ]; do ls / >/dev/null; i=$((i+1)); done"


@dataclass(frozen=True, slots=True)
class LookFigures:
    """What was measured on one VM. Times are CPU seconds."""

    release: str
    tasks: int
    first: float
    """Until it is marked, symbols and types included."""
    full: float
    """A look that asks for everything."""
    again: float
    """A refresh where 20 tasks ran since the last one."""
    still: float
    """A refresh of a guest that is stopped."""
    memory: int
    """Resident memory in bytes."""
    young: int
    """Tasks that started after a look."""
    structures: int
    """How many of these have their task structure in a firmware's regions."""
    stacks: int
    """How many also have their whole stack there."""


def measure_looks(
    kernel: str,
    memory: int,
    tasks: int,
    runs: int,
    young: int,
    cache: PackageCache,
    say: Callable[[str], None],
) -> LookFigures:
    """
    Measure looks at one VM, in a process that has loaded what that of a VM has.

    :param memory: MiB.
    :param young: How many tasks to start, each after a look.
    :param say: Called with a line about each step.
    """
    # What was loaded is frozen, and does not cost anything at each look.
    importlib.import_module("kmemdump.watch.preload")
    package = cache.kernel(kernel)
    say(f"booting {package.release} with {tasks} tasks")
    setup = Setup(package, memory=memory, tasks=tasks)
    with Machine(cache, setup, timeout=900) as machine:
        target = open_target(f"qmp:{machine.qmp}")
        selection = select(early=True)
        say("looking at it")
        first, marks = _timed(lambda: VmMarks(target, selection))
        marks.refresh()  # Learns what drgn keeps.
        again = [_work_and_refresh(machine, marks) for _ in range(runs)]
        machine.pause()
        still = [_timed(marks.refresh)[0] for _ in range(runs)]
        known = marks.capture.kernel
        full = [
            _timed(lambda: look(target, selection, known, again=True))[0]
            for _ in range(runs)
        ]
        machine.resume()
        resident = _resident()
        say(f"starting {young} tasks")
        found = [_start_task(machine, marks) for _ in range(young)]
        target.close()
    return LookFigures(
        package.release,
        tasks,
        first,
        median(full),
        median(again),
        median(still),
        resident,
        young,
        sum(structure for structure, _ in found),
        sum(structure and stack for structure, stack in found),
    )


def _work_and_refresh(machine: Machine, marks: VmMarks) -> float:
    machine.run(_WORK)
    return _timed(marks.refresh)[0]


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def _start_task(machine: Machine, marks: VmMarks) -> tuple[bool, bool]:
    """Return whether a task that starts now, and its stack, were marked before."""
    marks.refresh()
    regions = _planned(marks.capture)
    pid = int(machine.run("sleep 1000 >/dev/null 2>&1 & echo $!"))
    machine.pause()
    try:
        prog = attach(marks.target, known=marks.capture.kernel).prog
        task = find_task(prog, pid)
        places = (
            (task.value_(), sizeof(task[0])),
            (task.stack.value_(), prog["THREAD_SIZE"].value_()),
        )
        structure, stack = (
            not subtract([it for _, it in physical_ranges(prog, *place)], regions)
            for place in places
        )
    finally:
        machine.resume()
    machine.run(f"kill {pid}")
    return structure, stack


def _planned(capture: Capture) -> list[Range]:
    within = capture.memory.ranges
    return [region.range for region in plan(capture.marking, _ROWS, within).regions]


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
