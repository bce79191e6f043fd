# SPDX-License-Identifier: GPL-2.0-or-later
"""
drgn's crash commands, changed to go on where memory is missing or damaged.

drgn's own commands end at the first missing object. A task that started after the
memory was marked is in the kernel's lists, and on its CPU, but not in the core image.
drgn's ``irq`` does not end if the number of interrupts is damaged, and ``sys`` takes
gigabytes if the log's sizes are. ``log`` needs neither symbols nor types. ``mod`` warns
of modules that the kernel itself leaves out.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice

from drgn import FaultError, Program
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.irq import for_each_irq_desc, irq_get_nr_irqs
from drgn.helpers.linux.sched import cpu_curr
from drgn.helpers.linux.timekeeping import ktime_get_coarse_ns, ktime_get_coarse_real_ns

from kmemdump.errors import NotCapturedError
from kmemdump.kernel.limits import MAX_INTERRUPTS, MAX_TASKS
from kmemdump.kernel.loaded_modules import without_early_warnings
from kmemdump.kernel.printk import (
    LogRecord,
    format_record,
    head_address,
    read_log,
)
from kmemdump.kernel.program import NAME
from kmemdump.kernel.stack_end import missing_reads
from kmemdump.kernel.tasks import (
    is_without_registers,
    readable_pids,
    readable_tasks,
    stack_of_registers,
)
from kmemdump.questions.drgn_internals import check_log_first
from kmemdump.questions.stack_traces import note_cut_off, note_incomplete
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["TOLERANT_COMMANDS", "Run"]

Run = Callable[[list[str]], object]
"""Runs one crash command with arguments."""


def _log(prog: Program, run: Run) -> None:
    _print_records(prog, format_record)


def _log_with_dates(prog: Program, run: Run) -> None:
    boot = ktime_get_coarse_real_ns(prog).value_() - ktime_get_coarse_ns(prog).value_()

    def dated(record: LogRecord) -> str:
        date = datetime.fromtimestamp((boot + record.nanoseconds) // 10**9, UTC)
        return f"[{date.astimezone():%a %b %e %T %Z %Y}] {record.text}"

    _print_records(prog, dated)


def _log_without_time(prog: Program, run: Run) -> None:
    _print_records(prog, lambda record: record.text)


def _print_records(prog: Program, form: Callable[[LogRecord], str]) -> None:
    """
    Print the records that can be read.

    :raises NotCapturedError: At the end, if records are missing.
    """
    # drgn 0.3 misreads a record that wraps around the ring: it cuts off the last
    # 8 bytes and puts the block's id before the text.
    log = read_log(prog.read, _vmcoreinfo(prog))
    for record in log.records:
        print(form(record))
    log.check()


def _vmcoreinfo(prog: Program) -> VmcoreInfo:
    source = prog.config.get(NAME, "the kernel")
    return VmcoreInfo.parse(prog["VMCOREINFO"].string_(), source)


def _check_log(prog: Program) -> None:
    # drgn takes the sizes of the ring for true: 2^30 bits of a number, and more.
    head_address(prog.read, _vmcoreinfo(prog))


check_log_first(_check_log)


def _ps(prog: Program, run: Run) -> None:
    """
    List the tasks; if some are missing, the others.

    :raises NotCapturedError: At the end, if some are missing.
    """
    problem = _print_whole(run, [])
    if problem is None:
        return
    held = [str(pid) for pid in readable_pids(prog) if _output(run, [str(pid)])]
    if not held:
        raise problem
    run(held)
    raise NotCapturedError(f"other tasks cannot be read: {problem.message}")


def _bt_a(prog: Program, run: Run) -> None:
    """Print each CPU's stack, unwound from its registers if its task is missing."""
    problem = _print_whole(run, ["-a"])
    if problem is None:
        return
    parts = list(_stacks(prog, run))
    if not parts:
        raise problem
    print("\n".join(parts), end="")


def _foreach_bt(prog: Program, run: Run) -> None:
    """
    Print the stacks of all tasks; if some are missing, the others and why.

    Of a task that has exited, or was about to while it was read, there is no stack in
    the kernel's memory either. That is no gap in the answer.

    :raises LookupError: At the end, if a task was running and there are no registers.
    """
    text, problem = _partial_output(run, ["bt"])
    if problem is None:
        print(text, end="")
        return
    without_registers = None
    parts = []
    start = missing_reads(prog)
    for task in islice(readable_tasks(prog), MAX_TASKS):
        address = f"{task.value_():x}"
        before = missing_reads(prog)
        text, problem = _partial_output(run, [address, "bt"])
        if problem is not None:
            header = text or f"TASK: {address}\n"
            text = f"{header}(no stack: {_reason(problem)})\n"
            if is_without_registers(problem):
                without_registers = problem
            elif missing_reads(prog) > before:
                note_cut_off(f"task {address}", f"missing: {_reason(problem)}")
        parts.append(text)
    print("\n".join(parts), end="")
    if without_registers is not None:
        raise without_registers
    if missing_reads(prog) > start:
        note_incomplete("the stacks of other tasks are missing")


def _irq(prog: Program, run: Run) -> None:
    """List the interrupts, unless their number is impossibly large."""
    # drgn prints a line for each number up to the last one, which may be damaged.
    count = irq_get_nr_irqs(prog)
    numbers = islice((number for number, _ in for_each_irq_desc(prog)), MAX_INTERRUPTS)
    count = max(count, *numbers, 0)
    if count > MAX_INTERRUPTS:
        raise LookupError(f"{count} interrupts, expected at most {MAX_INTERRUPTS}")
    run([])


def _mod(prog: Program, run: Run) -> None:
    """List the modules; of one that is being loaded, there is nothing to list."""
    with without_early_warnings(prog):
        run([])


def _by_namespace(kind: str) -> Callable[[Program, Run], None]:
    """
    Return a command about the namespace of the current task.

    A task that ends has left its namespaces (exit_task_namespaces(), Linux
    kernel/nsproxy.c): then it is about the initial one.
    """

    def ask(prog: Program, run: Run) -> None:
        initial = prog["init_task"]
        # In any case, so that a core image has it when the current task ends.
        initial.nsproxy.member_(kind).read_()
        task = prog.config.get("crash_context")
        ended = task is not None and not task.nsproxy
        run(["-n", f"{initial.address_of_().value_():x}"] if ended else [])

    return ask


def _stacks(prog: Program, run: Run) -> Iterator[str]:
    for cpu in for_each_online_cpu(prog):
        text, problem = _partial_output(run, ["-c", str(cpu)])
        if isinstance(problem, FaultError):
            text = _stack_without_task(prog, cpu, problem)
        elif problem is not None:
            raise problem
        yield text


def _stack_without_task(prog: Program, cpu: int, problem: FaultError) -> str:
    task = cpu_curr(prog, cpu).value_()
    note_cut_off(f"CPU {cpu}", f"from its registers alone: {problem.message}")
    lines = [
        f"PID: ?        TASK: {task:x}  CPU: {cpu}  (not captured: {problem.message})"
    ]
    try:
        for number, frame in enumerate(stack_of_registers(prog, cpu)):
            lines.append(f"#{number:<2} {frame.pc:x} {frame.name or '???'}")
    except (LookupError, FaultError) as error:
        lines.append(f"(no stack: {error})")
    return "".join(f"{line}\n" for line in lines)


def _reason(problem: Exception) -> str:
    return problem.message if isinstance(problem, FaultError) else str(problem)


def _print_whole(run: Run, arguments: list[str]) -> FaultError | None:
    """Print the answer if it is complete; otherwise return why it is not."""
    text, problem = _partial_output(run, arguments)
    if isinstance(problem, FaultError):
        return problem
    if problem is not None:
        raise problem
    print(text, end="")
    return None


def _output(run: Run, arguments: list[str]) -> str:
    """Return a command's output; nothing if it fails."""
    text, problem = _partial_output(run, arguments)
    return "" if problem is not None else text


def _partial_output(run: Run, arguments: list[str]) -> tuple[str, Exception | None]:
    """Return a command's output, and why it is not complete, if so."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            run(arguments)
    except (FaultError, LookupError, ValueError) as error:
        return output.getvalue(), error
    return output.getvalue(), None


TOLERANT_COMMANDS: dict[tuple[str, ...], Callable[[Program, Run], None]] = {
    ("log",): _log,
    ("log", "-T"): _log_with_dates,
    ("log", "-t"): _log_without_time,
    ("ps",): _ps,
    ("bt", "-a"): _bt_a,
    ("foreach", "bt"): _foreach_bt,
    ("irq",): _irq,
    ("mod",): _mod,
    ("mount",): _by_namespace("mnt_ns"),
    ("ipcs",): _by_namespace("ipc_ns"),
}
"""The commands by name and arguments."""
