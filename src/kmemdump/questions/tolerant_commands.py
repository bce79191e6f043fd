# SPDX-License-Identifier: GPL-2.0-or-later
"""
Crash commands of drgn's that end at the first thing that is missing, made to go on; and
one that does not end, made to.

A task that began after the memory was marked is in the kernel's lists, and on its CPU,
but not in the core image.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from itertools import islice

from drgn import FaultError, Program
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.irq import for_each_irq_desc, irq_get_nr_irqs
from drgn.helpers.linux.sched import cpu_curr

from kmemdump.kernel.tasks import readable_pids, stack_of_registers

__all__ = ["PATIENT", "Run"]

_MAX_INTERRUPTS = 1 << 16

Run = Callable[[list[str]], object]
"""Runs a crash command of drgn's with arguments."""


def _ps(prog: Program, run: Run) -> None:
    """List the tasks; if not all are there, those that are, and say so."""
    problem = _print_whole(run, [])
    if problem is None:
        return
    held = [str(pid) for pid in readable_pids(prog) if _output(run, [str(pid)])]
    if not held:
        raise problem
    run(held)
    print(f"(others cannot be read: {problem.message})")


def _bt_a(prog: Program, run: Run) -> None:
    """Print each CPU's stack; where its task is not there, from its registers."""
    problem = _print_whole(run, ["-a"])
    if problem is None:
        return
    parts = list(_stacks(prog, run))
    if not parts:
        raise problem
    print("\n".join(parts), end="")


def _irq(prog: Program, run: Run) -> None:
    """List the interrupts, if there are not more than there can be."""
    # drgn makes a line of each number up to the last, whatever damage says that is.
    count = irq_get_nr_irqs(prog)
    numbers = islice((number for number, _ in for_each_irq_desc(prog)), _MAX_INTERRUPTS)
    count = max(count, *numbers, 0)
    if count > _MAX_INTERRUPTS:
        raise LookupError(f"{count} interrupts, expected at most {_MAX_INTERRUPTS}")
    run([])


def _stacks(prog: Program, run: Run) -> Iterator[str]:
    for cpu in for_each_online_cpu(prog):
        try:
            yield _output(run, ["-c", str(cpu)], strict=True)
        except FaultError as error:
            yield _stack_without_task(prog, cpu, error)


def _stack_without_task(prog: Program, cpu: int, problem: FaultError) -> str:
    task = cpu_curr(prog, cpu).value_()
    lines = [
        f"PID: ?        TASK: {task:x}  CPU: {cpu}  (not there: {problem.message})"
    ]
    try:
        for number, frame in enumerate(stack_of_registers(prog, cpu)):
            lines.append(f"#{number:<2} {frame.pc:x} {frame.name or '???'}")
    except (LookupError, FaultError) as error:
        lines.append(f"(no stack: {error})")
    return "".join(f"{line}\n" for line in lines)


def _print_whole(run: Run, arguments: list[str]) -> FaultError | None:
    """Print an answer if it is a whole one; return why it is not."""
    try:
        print(_output(run, arguments, strict=True), end="")
    except FaultError as error:
        return error
    return None


def _output(run: Run, arguments: list[str], *, strict: bool = False) -> str:
    """Return what a command prints: nothing if it fails, unless *strict*."""
    ignored = () if strict else (FaultError, LookupError, ValueError)
    output = io.StringIO()
    with contextlib.suppress(*ignored), contextlib.redirect_stdout(output):
        run(arguments)
        return output.getvalue()
    return ""


PATIENT: dict[tuple[str, ...], Callable[[Program, Run], None]] = {
    ("ps",): _ps,
    ("bt", "-a"): _bt_a,
    ("irq",): _irq,
}
"""The commands, word by word."""
