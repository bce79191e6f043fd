# SPDX-License-Identifier: GPL-2.0-or-later
"""A report as text: with colours on a terminal, plain in a file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from kmemdump.diagnosis.cpu_words import name_cpus
from kmemdump.diagnosis.records import Cause, CauseKind, Cpu, Frame
from kmemdump.kernel.printk import LogRecord, format_record
from kmemdump.report.records import Findings
from kmemdump.report.wording import (
    cpu_frames,
    cpu_notes,
    cpu_problem,
    facts,
    fault_source,
    heading,
    interruption,
    lock_words,
    locks_notes,
    log_notes,
    shown_code,
    split_cpus,
    stack_problem,
    trace_words,
    wait_words,
)
from kmemdump.text import plain_console, printable

__all__ = ["find_excerpt", "print_cause", "print_lines", "print_report", "to_text"]

_MAX_RECORDS = 100
"""How many records of the log are shown unless more are asked for."""
_LAST = 30
"""How many of the last records are shown if none is evidence of the death."""
_BEFORE = 10
"""How many records are shown before the first that is evidence."""
_SHOWN_INTERRUPTS = 8
_SHOWN_BLOCKED = 20
_SHOWN_LOCKS = 30
_REGISTERS_IN_LINE = 3
_INDENT = 2
_WIDEST = 100
"""Most columns; longer lines are harder to read."""


def print_report(
    report: Findings,
    console: Console,
    *,
    lines: int | None = None,
    most: int = _MAX_RECORDS,
) -> None:
    """
    Print a report, the cause of death first, then its stack.

    :param lines: How many of the log's last records to show; ``None`` for those that
        led to the death.
    :param most: Most records that are shown in that case.
    """
    printer = _Printer(console)
    first, others = split_cpus(report)
    printer.cause(report.cause)
    if first is not None:
        printer.cpu(first, report.cause)
    elif report.trace:
        printer.trace(report)
    printer.fault(report)
    printer.facts(facts(report))
    for group in others:
        printer.cpu(group, report.cause)
    printer.blocked(report)
    printer.waits(report)
    printer.interrupts(report)
    printer.log(report, find_excerpt(report, lines, most))
    printer.missing(report)


def print_cause(report: Findings, console: Console) -> None:
    """Print a report's cause alone."""
    console.print()
    _Printer(console).sentence(report.cause)


def to_text(report: Findings, *, lines: int | None = None) -> str:
    """
    Return a report as plain text for a file.

    :param lines: As for :func:`print_report`.
    """
    text = io.StringIO()
    console = plain_console(file=text, width=_WIDEST)
    print_report(report, console, lines=lines)
    return text.getvalue()


def find_excerpt(
    report: Findings, lines: int | None = None, most: int = _MAX_RECORDS
) -> range:
    """
    Return the positions of the records to show.

    :param lines: How many of the last records to show; ``None`` for those that led to
        the death.
    :param most: Most records that are shown in that case.
    """
    total = len(report.log)
    if lines is not None:
        return range(max(total - lines, 0), total)
    start = total - min(_LAST, most)
    first = _first_evidence(report, most)
    if first is not None:
        start = min(start, first - _BEFORE)
    start = max(start, 0)
    return range(start, min(start + most, total))


def _first_evidence(report: Findings, most: int) -> int | None:
    """Return the position of the first record that is evidence of the death."""
    evidence = {record.sequence for record in report.cause.log}
    found = [i for i, record in enumerate(report.log) if record.sequence in evidence]
    if not report.cause.fatal or report.cause.kind is CauseKind.HANG:
        # Warnings may be old; the end of the log matters more.
        oldest = len(report.log) - most + _BEFORE
        found = [i for i in found if i >= oldest]
    return found[0] if found else None


def print_lines(
    console: Console, text: str, style: str = "", *, indent: int = 0, head: str = ""
) -> None:
    """
    Print text that may be hostile, wrapped to the console.

    :param indent: Columns before each line.
    :param head: Text before the first line; the other lines leave room for it.
    """
    width = max(min(console.width, _WIDEST) - indent - len(head), 20)
    lines = Text(printable(text), style).wrap(console, width, overflow="fold")
    for i, line in enumerate(lines):
        line.rstrip()
        start = " " * indent + (" " * len(head) if i else head)
        console.print(Text(start) + line, soft_wrap=True)


class _Printer:
    def __init__(self, console: Console) -> None:
        self._console = console

    def heading(self, title: str, note: str = "") -> None:
        heading = Text.assemble((title, "bold"), printable(note))
        self._console.print(heading, soft_wrap=True)

    def line(self, text: str, style: str = "", head: str = " " * _INDENT) -> None:
        # Lines in a file are not wrapped, so that searches find them.
        if self._console.is_terminal:
            print_lines(self._console, text, style, head=head)
        else:
            self._console.print(Text(head + printable(text)), soft_wrap=True)

    def records(self, records: Iterable[LogRecord]) -> None:
        for record in records:
            style = "red" if record.level is not None and record.level <= 3 else ""
            for line in format_record(record).split("\n"):
                self.line(line, style)

    def cause(self, cause: Cause) -> None:
        self.heading(heading(cause))
        self.sentence(cause)
        for evidence in cause.evidence:
            print_lines(self._console, evidence, indent=_INDENT, head="- ")
        if cause.advice:
            print_lines(self._console, cause.advice, indent=_INDENT, head="Next: ")
        if cause.log:
            self._console.print()
            self.records(cause.log)

    def sentence(self, cause: Cause) -> None:
        style = "bold green" if cause.kind == CauseKind.ALIVE else "bold red"
        print_lines(self._console, cause.sentence, style, indent=_INDENT)

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        self._console.print()
        for name, value in facts:
            print_lines(self._console, value, head=f"{name + ':':<14}")

    def cpu(self, cpus: Sequence[Cpu], cause: Cause) -> None:
        self._console.print()
        cpu = cpus[0]
        notes = "".join(f", {note}" for note in cpu_notes(cpu, cause))
        self.heading(name_cpus(cpus), notes)
        problem = cpu_problem(cpu)
        if problem is not None:
            self.line(problem)
        marked = cause.frame if cpu.number == cause.cpu else None
        self.frames(cpu_frames(cpu, cause), marked)

    def frames(self, frames: Sequence[Frame], marked: int | None = None) -> None:
        for i, frame in enumerate(frames):
            came = interruption(frames, i)
            if came is not None:
                self.line(f"^ {came}", "dim", head=" " * 7)
            inline = " (inlined)" if frame.inline else ""
            source = f"  {frame.source}" if frame.source else ""
            style, arrow = ("bold", "->") if i == marked else ("", "")
            text = f"#{i:<3}{frame.place}{inline}{source}"
            self.line(text, style, head=f"{arrow:<3}")

    def trace(self, report: Findings) -> None:
        self._console.print()
        self.heading("Stack trace", " (as logged)")
        for entry in report.trace:
            self.line(trace_words(entry), "" if entry.reliable else "dim")

    def fault(self, report: Findings) -> None:
        fault = report.fault
        if fault is None:
            return
        self._console.print()
        self.heading("Registers", f" (from {fault_source(fault)})")
        names = max((len(item.name) for item in fault.registers), default=0)
        cells = [f"{x.name:>{names}} {x.value:016x}" for x in fault.registers]
        for i in range(0, len(cells), _REGISTERS_IN_LINE):
            self.line("  ".join(cells[i : i + _REGISTERS_IN_LINE]))
        if fault.code:
            self._console.print()
            self.heading("Code", f" ({fault.problem})" if fault.problem else "")
        for item in shown_code(fault):
            style, arrow = ("bold", "->") if item.offset == 0 else ("", "")
            text = f"{item.offset:+4d}  {item.text or item.code}"
            self.line(text, style, head=f"{arrow:<3}")

    def waits(self, report: Findings) -> None:
        if report.waits:
            self._console.print()
            self.heading("Who waits for whom")
            for wait in report.waits:
                self.line(wait_words(wait))
        if report.locks:
            self._console.print()
            self.heading("Locks held", f" ({locks_notes(report)})")
            for lock in report.locks[:_SHOWN_LOCKS]:
                self.line(lock_words(lock))
            if len(report.locks) > _SHOWN_LOCKS:
                self.line(f"and {len(report.locks) - _SHOWN_LOCKS} more")

    def blocked(self, report: Findings) -> None:
        if not report.blocked:
            return
        self._console.print()
        self.heading("Blocked tasks", f" ({len(report.blocked)} in state D)")
        for blocked in report.blocked[:_SHOWN_BLOCKED]:
            self.line(blocked.task.title)
            if blocked.problem is not None:
                self.line(stack_problem(blocked.problem, blocked.frames))
            self.frames(blocked.frames)
        if len(report.blocked) > _SHOWN_BLOCKED:
            self.line(f"and {len(report.blocked) - _SHOWN_BLOCKED} more")

    def interrupts(self, report: Findings) -> None:
        if not report.interrupts:
            return
        self._console.print()
        self.heading("Interrupts", " (the busiest)")
        for item in report.interrupts[:_SHOWN_INTERRUPTS]:
            self.line(f"{item.number:>4} {item.count:>12,}  {', '.join(item.names)}")

    def log(self, report: Findings, shown: range) -> None:
        if not shown:
            return
        self._console.print()
        self.heading("Kernel log", f" ({log_notes(report, shown)})")
        self.records(report.log[i] for i in shown)

    def missing(self, report: Findings) -> None:
        if not report.missing:
            return
        self._console.print()
        self.heading("Missing in this report")
        for loss in report.missing:
            text = f"{loss.what}: {loss.why}"
            print_lines(self._console, text, indent=_INDENT, head="- ")
