# SPDX-License-Identifier: GPL-2.0-or-later
"""
A report's records in words, for all its views.
Programs on the dead machine chose the names of tasks, lines of the log and the like, so
each view passes all text through :func:`kmemdump.text.printable`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from kmemdump.diagnosis.records import Cause, CauseKind, Cpu, Frame, Task
from kmemdump.kernel.symbol_names import base_name
from kmemdump.report.records import (
    Fault,
    Findings,
    HeldLock,
    Instruction,
    MemoryUse,
    Taint,
    TraceEntry,
    Wait,
)
from kmemdump.text import format_duration, format_memory

__all__ = [
    "STATES",
    "cpu_frames",
    "cpu_notes",
    "cpu_problem",
    "facts",
    "fault_source",
    "heading",
    "host",
    "idle_frames",
    "interruption",
    "letters",
    "lock_words",
    "locks_notes",
    "log_notes",
    "memory_parts",
    "shown_code",
    "some_tasks",
    "split_cpus",
    "stack_problem",
    "swap_words",
    "trace_words",
    "wait_words",
]

_NAMED = 3
"""Tasks of a group."""
_CODE_BEFORE, _CODE_AFTER = 8, 6
"""Instructions shown before the one that failed, and from it on."""

_ENDS = (
    *(CauseKind.PANIC, CauseKind.NULL, CauseKind.NMI, CauseKind.REBOOT),
    *(CauseKind.RESET, CauseKind.TRIPLE_FAULT, CauseKind.VM_ENDED),
)
"""Deaths that stop the kernel's clock."""

STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "blocked",
    "I": "idle in the kernel",
    "T": "stopped",
    "t": "traced",
    "Z": "zombie",
    "P": "parked",
    "X": "dead",
}


def heading(cause: Cause) -> str:
    """Return the heading of a cause, which mentions death if that is proven."""
    return "Cause of death" if cause.fatal else "State"


def idle_frames(cpu: Cpu) -> Sequence[Frame]:
    """Return a CPU's frames up to the loop that every idle CPU runs."""
    names = [base_name(frame.symbol or "") for frame in cpu.frames]
    end = names.index("do_idle") + 1 if "do_idle" in names else len(names)
    return cpu.frames[:end]


def _idles(cpu: Cpu) -> bool:
    """Return whether a CPU had nothing to do, until the panic stopped it."""
    if not cpu.idle or cpu.online:
        return bool(cpu.idle and not cpu.interrupted)
    # One interrupt stops a CPU; a second interrupt came before that.
    return sum(frame.interrupted for frame in cpu.frames[1:]) < 2


def cpu_notes(cpu: Cpu, cause: Cause) -> list[str]:
    """Return notes on a CPU, to be shown beside its number."""
    notes = []
    if not cpu.online and cause.kind == CauseKind.ALIVE:
        return ["offline"]
    if cpu.idle:
        notes.append("idle" if _idles(cpu) else "its idle task, interrupted")
    elif cpu.task is not None:
        notes.append(f"task {cpu.task.title}")
    if cpu.number == cause.cpu:
        suspected = cause.kind == CauseKind.UNKNOWN
        notes.append("suspected" if suspected else "where it happened")
    elif not cpu.online:
        # A panic stops other CPUs by an interrupt.
        notes.append("then stopped by the panic" if cpu.interrupted else "offline")
    if cpu.interrupts is False and cause.kind in (CauseKind.HANG, CauseKind.UNKNOWN):
        notes.append("interrupts off")
    return notes


def cpu_frames(cpu: Cpu, cause: Cause) -> Sequence[Frame]:
    """Return the frames of a CPU that are shown."""
    if not cpu.online and cause.kind == CauseKind.ALIVE:
        return ()
    return cpu.frames if cpu.number == cause.cpu else idle_frames(cpu)


def cpu_problem(cpu: Cpu) -> str | None:
    """Return why a CPU has no frames, or only few."""
    if cpu.problem is not None:
        return stack_problem(cpu.problem, cpu.frames)
    if cpu.ip is not None and not cpu.frames:
        return f"at {cpu.ip:#x}, no stack"
    return None


def stack_problem(problem: str, frames: Sequence[Frame]) -> str:
    """Return in words why a stack has no frames, or only few."""
    return problem if frames else f"no stack: {problem}"


def split_cpus(report: Findings) -> tuple[list[Cpu] | None, list[list[Cpu]]]:
    """Return the CPU on which the kernel failed, if known, and groups of the others."""
    groups = {group[0].number: group for group in _group_cpus(report)}
    number = report.cause.cpu
    first = None if number is None else groups.pop(number, None)
    return first, list(groups.values())


def _group_cpus(report: Findings) -> list[list[Cpu]]:
    """Group the CPUs; CPUs that are idle at the same place share a group."""
    groups: dict[str, list[Cpu]] = {}
    for cpu in report.cpus:
        same: object = cpu.number
        if cpu.idle and cpu.number != report.cause.cpu:
            notes = cpu_notes(cpu, report.cause)
            same = [frame.place for frame in idle_frames(cpu)], cpu.problem, notes
        groups.setdefault(repr(same), []).append(cpu)
    return list(groups.values())


def interruption(frames: Sequence[Frame], at: int) -> str | None:
    """Return in words what interrupted a frame, if anything did."""
    if not at or not frames[at].interrupted:
        return None
    stack = frames[at - 1].stack or ""
    kind = {"irq": "interrupt", "nmi": "NMI"}.get(stack, "exception or interrupt")
    return f"{kind}, which came here:"


def some_tasks(tasks: Sequence[Task]) -> str:
    """Name the first few of many tasks."""
    names = ", ".join(task.title for task in tasks[:_NAMED])
    more = len(tasks) - _NAMED
    return f"{names} and {more} more" if more > 0 else names


def fault_source(fault: Fault) -> str:
    """Return in words where registers were found."""
    return "the log" if fault.source == "log" else "the memory"


def shown_code(fault: Fault) -> Sequence[Instruction]:
    """Return the instructions nearest to the one that failed."""
    at = next((i for i, item in enumerate(fault.code) if item.offset == 0), 0)
    return fault.code[max(at - _CODE_BEFORE, 0) : at + _CODE_AFTER]


def trace_words(entry: TraceEntry) -> str:
    """Return a line of a stack trace, in the form of the kernel's scripts."""
    doubt = "" if entry.reliable else "? "
    if entry.source:
        place = f" ({entry.source})"
    elif entry.offset is None or entry.size is None:
        place = ""
    else:
        place = f"+{entry.offset:#x}/{entry.size:#x}"
    module = f" [{entry.module}]" if entry.module else ""
    stack = f" <{entry.stack.upper()}>" if entry.stack else ""
    return f"{doubt}{entry.function}{place}{module}{stack}"


def wait_words(wait: Wait) -> str:
    """Return in words who waits for whom."""
    name = f" {wait.name}" if wait.name else ""
    address = f" at {wait.address:#x}" if wait.address is not None else ""
    owner = "whose holder is unknown"
    if wait.owner is not None:
        held = "held" if wait.sure else "last known to be held"
        owner = f"{held} by {wait.owner.title}"
        if wait.owner.state not in (None, "D"):
            state = wait.owner.state or ""
            owner += f", which is {STATES.get(state, f'in state {state}')}"
    lock = f"an {wait.lock}" if wait.lock.startswith(("rt", "rw")) else f"a {wait.lock}"
    return f"{wait.waiter.title} waits for {lock}{name}{address}, {owner}"


def lock_words(lock: HeldLock) -> str:
    """Return in words who holds, or waits for, a lock of which lockdep knows."""
    how = "waits for it" if lock.waiting else "taken"
    where = f", {how} in {lock.at}" if lock.at else ", waits for it" * lock.waiting
    return f"{lock.task.title}: {lock.lock}{where}"


def locks_notes(report: Findings) -> str:
    """Say where the locks come from, and whether they may be old."""
    if report.locks_stopped:
        return "by lockdep, as of when it stopped: its first report, an oops or a panic"
    return "by lockdep"


def log_notes(report: Findings, shown: range) -> str:
    """
    Say how much of the log is shown, left out, overwritten and lost.

    :param shown: Positions of the records that are shown.
    """
    total = len(report.log)
    if len(shown) == total:
        notes = [f"all {total} records"]
    elif shown.stop == total:
        notes = [f"the last {len(shown)} of {total} records"]
    else:
        later = f"{total - shown.stop} later ones are left out"
        notes = [f"{len(shown)} of {total} records", later]
    if report.log_overwritten:
        notes.append(f"{report.log_overwritten} older ones were overwritten")
    if report.log_lost:
        notes.append(f"{report.log_lost} were lost")
    return ", ".join(notes)


def host(report: Findings) -> str | None:
    """Return the machine's name, if it has one."""
    name = report.kernel.hostname
    return name if name != "(none)" else None  # The kernel's default.


def facts(report: Findings) -> Iterator[tuple[str, str]]:
    """Yield facts about the machine: names and values."""
    kernel, time = report.kernel, report.time
    name = host(report)
    if name:
        yield "Host", name
    machine = f" {kernel.machine}" if kernel.machine else ""
    if kernel.release:
        yield "Kernel", f"{kernel.release}{machine}"
    if report.hardware is not None:
        yield "Machine", report.hardware.name
        if report.hardware.bios:
            yield "BIOS", report.hardware.bios
    when = []
    if time.uptime is not None:
        when.append(f"{format_duration(time.uptime)} after boot")
    if time.date is not None:
        when.append(f"{time.date:%Y-%m-%d %H:%M:%S} UTC by its own clock")
    if when:
        ends = report.cause.fatal and report.cause.kind in _ENDS
        yield "Died" if ends else "Last tick", ", ".join(when)
    if time.captured is not None:
        marked = f" (marked {time.marked:%H:%M:%S})" if time.marked else ""
        yield (
            "Captured",
            f"{time.captured:%Y-%m-%d %H:%M:%S} UTC{marked} by the clock of the "
            "machine that captured it",
        )
    if report.cpus:
        idle = sum(_idles(cpu) for cpu in report.cpus)
        yield "CPUs", f"{len(report.cpus)}, {idle} of them idle"
    if report.load is not None:
        yield "Load", " ".join(f"{value:.2f}" for value in report.load)
    if report.tasks:
        states = Counter(task.state or "?" for task in report.tasks)
        counts = ", ".join(
            f"{count} {STATES.get(state, f'in state {state}')}"
            for state, count in states.most_common()
        )
        yield "Tasks", f"{len(report.tasks)}: {counts}"
    if report.memory is not None:
        parts = [
            f"{format_memory(value)} {name}"
            for name, value in memory_parts(report.memory)
        ]
        swap = swap_words(report.memory)
        yield "Memory", ", ".join([*parts, swap] if swap else parts)
    if report.modules:
        names = (f"{item.name}{letters(item.taints)}" for item in report.modules)
        yield "Modules", " ".join(names)
    if report.taints:
        reasons = (f"{item.words} ({item.letter})" for item in report.taints)
        yield "Tainted", "; ".join(reasons)
    if kernel.command_line:
        yield "Command line", kernel.command_line
    if report.redacted:
        yield "Redacted", f"by policy {report.redacted}"
    yield "Source", report.source


def letters(taints: Iterable[Taint]) -> str:
    """Return the letters of taints in brackets, as the kernel prints them."""
    letters = "".join(taint.letter for taint in taints)
    return f"({letters})" if letters else ""


def memory_parts(memory: MemoryUse) -> list[tuple[str, int]]:
    """Return what memory was used for: names and sizes in bytes."""
    named = (
        ("total", memory.total),
        ("free", memory.free),
        ("of files", memory.file),
        ("anonymous", memory.anonymous),
        ("slab", memory.slab),
    )
    return [(name, value) for name, value in named if value is not None]


def swap_words(memory: MemoryUse) -> str | None:
    """Return the use of swap in words."""
    if not memory.swap_total:
        return None
    free = f", {format_memory(memory.swap_free)} free" if memory.swap_free else ", full"
    return f"{format_memory(memory.swap_total)} swap{free}"
