# SPDX-License-Identifier: GPL-2.0-or-later
"""The lines of one event, and what they name: stacks, registers, task, CPU."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kmemdump.diagnosis.log_line import LogLine
from kmemdump.diagnosis.stack_lines import (
    StackLine,
    read_callee,
    read_counter,
    read_frame,
    read_link,
)

__all__ = ["MAX_TEXT", "EventBlock", "Trace", "read_block", "traces_of"]

MAX_TEXT = 600
"""Characters of a line that are looked at; the kernel's own limit is near 1000."""
_MAX_LINES = 1000
"""Lines of an event, of whichever CPU: a lockdep report has 150."""
_MAX_SEEN = 10_000
"""The same, with the lines of other CPUs in between."""
_MAX_FRAMES = 1000

_END = re.compile(r"---\[ end (?:trace|Kernel panic)")
_TRACE = re.compile(
    r"(?:Call [Tt]race|Backtrace|stack backtrace): ?$|Call Trace:|^\s*$|</TASK>|"
    r"^-> #\d|\bby (?:task|interrupt)\b.{0,40}:$|NMI backtrace for cpu|"
    r"^Modules linked in|"
    r"Showing all locks|Sending NMI|^\s*task:|^={10,}|-{3}\[ end|^Register state"
)
"""Lines at which another stack trace begins, or one ends."""
_TITLE = re.compile(r"(?:Call [Tt]race|Backtrace|stack backtrace): ?(?:$|\n)", re.M)
_OTHER = re.compile(
    r"^\s*(?:(?:Uninit was|Allocated by|Freed by|Last potentially|"
    r"the existing dependency|"
    r"-> #\d|kfence-#|allocated by|freed by|page last (?:free|allocated)|"
    r"The buggy address belongs|The buggy address is|Local variable|Bytes \d|"
    r"page last|Object |Second to last))"
)
"""Lines from which on the stacks are those of what was before the event."""
CPU_LINE = re.compile(
    r"CPU: (?P<cpu>\d+) (?:UID: \w+ )?PID: (?P<pid>\d+) Comm: (?P<comm>.{1,64}?) "
    r"(?:Kdump: \w+ )?(?:Not t|T)ainted"
)
_CPU_CUT = re.compile(
    r"CPU: (?P<cpu>\d+) (?:UID: \w+ )?PID: (?P<pid>\d+) Comm: (?P<comm>[^\s]{1,16})"
)
_ADDRESS = re.compile(
    r"(?:at virtual address|for address:?|dereference(?: at)?,? address:|"
    r"paging request(?: "
    r"for data)? at|request at|fault for address:|dereference at|non-canonical address|"
    r"in non-executable memory at virtual address) (?:0x)?([0-9a-f]{5,16})\b"
)
_ADDRESS_LATER = re.compile(r"\baddress:? (?:0x)?([0-9a-f]{8,16})\b")
_ACCESS = re.compile(
    r"#PF: \w+ (\w+) (?:access|fetch) in kernel mode|^\s*(Write|Read) of size|"
    r"\b(instruction fetch) in kernel mode"
)
_ACCESS_BIT = re.compile(r"\bWnR = ([01])\b")


@dataclass(slots=True)
class Trace:
    """One stack trace."""

    header: str
    """The lines before it that say whose it is, joined."""
    frames: list[StackLine] = field(default_factory=list)
    lines: list[LogLine] = field(default_factory=list)
    counter: StackLine | None = None
    """Registers before it."""
    link: StackLine | None = None
    """The function that called last, by the registers before it."""
    titled: bool = False
    """Whether a line before says that it is one."""
    past: bool = False
    """Whether it is of something before the event: who allocated the memory."""


@dataclass(frozen=True, slots=True)
class EventBlock:
    """The lines that belong to one event."""

    lines: Sequence[LogLine]

    def search(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = (pattern.search(line.text[:MAX_TEXT]) for line in self.lines)
        return next((match for match in found if match is not None), None)

    def line_of(self, pattern: re.Pattern[str]) -> LogLine | None:
        return next((x for x in self.lines if pattern.search(x.text[:MAX_TEXT])), None)

    @property
    def _who(self) -> re.Match[str] | None:
        return self.search(CPU_LINE) or self.search(_CPU_CUT)

    @property
    def cpu(self) -> int | None:
        match = self._who
        return int(match["cpu"]) if match else None

    @property
    def task(self) -> tuple[str, int] | None:
        """Name and pid."""
        match = self._who
        return (match["comm"], int(match["pid"])) if match else None

    @property
    def who_line(self) -> LogLine | None:
        return self.line_of(CPU_LINE) or self.line_of(_CPU_CUT)

    @property
    def access(self) -> str:
        """In words, the memory access that failed."""
        address = self.search(_ADDRESS) or self.search(_ADDRESS_LATER)
        if address is None:
            return ""
        access, bit = self.search(_ACCESS), self.search(_ACCESS_BIT)
        verb = "access"
        if access:
            verb = (access[1] or access[2] or access[3]).lower()
            verb = "execution" if verb.startswith("instr") else verb
        elif bit:
            verb = "write" if bit[1] == "1" else "read"
        return f" ({verb} at address {int(address[1], 16):#x})"


def read_block(
    lines: Sequence[LogLine], start: int, stop: int, *, every_caller: bool = False
) -> EventBlock:
    """
    Return the block that begins at an index.

    :param stop: Index of the next event, which does not belong to it.
    :param every_caller: Whether lines of other CPUs belong to it, which were asked for
        their stacks.
    """
    caller, timed = lines[start].caller, lines[start].seconds is not None
    found = []
    for line in lines[start : min(stop, start + _MAX_SEEN)]:
        if caller and line.caller and line.caller != caller and not every_caller:
            continue
        if timed and line.seconds is None:
            continue  # What a process wrote to the same console.
        found.append(line)
        if len(found) == _MAX_LINES or _END.search(line.text[:MAX_TEXT]):
            break
    return EventBlock(found)


def traces_of(block: EventBlock) -> Iterator[Trace]:
    """Yield the stack traces of a block."""
    trace = Trace("")
    header: list[str] = []
    past = False
    for line in block.lines:
        text = line.text[:MAX_TEXT]
        counter = read_counter(text)
        frame = None if counter else read_frame(text)
        if counter is None and frame is None:
            past = past or _OTHER.match(text) is not None
            if trace.frames and _TRACE.search(text):
                yield trace
                trace = Trace("")
            if text.strip():
                header = [*header[-_MAX_HEADER:], text]
            if not trace.frames:
                trace.link = trace.link or read_link(text)
                trace.titled = _TITLE.search("\n".join(header[-4:])) is not None
                trace.header, trace.past = "\n".join(header), past
            elif text.strip() in _ENDS:
                end = _NMI_END if "NMI" in text else _BOUNDARY
                if trace.frames[-1] is not end:
                    trace.frames.append(end)
            continue
        if counter is not None:
            if trace.frames:
                if counter.name:
                    trace.frames.append(counter)
            elif trace.counter is None or (trace.counter.name is None and counter.name):
                trace.counter = counter
            trace.lines.append(line)
        elif frame is not None and len(trace.frames) < _MAX_FRAMES:
            if not trace.frames:
                header = []
                callee = read_callee(text)
                if callee is not None:
                    trace.frames.append(callee)
            trace.frames.append(frame)
            trace.lines.append(line)
    if trace.frames or trace.counter:
        yield trace


_ENDS = ("</IRQ>", "</NMI>", "<EOE>")
_MAX_HEADER = 40
_BOUNDARY = StackLine(None, "", after_exception=True)
"""The end of an interrupt's stack: what was interrupted follows."""
_NMI_END = StackLine(None, "", "NMI", after_exception=True)
"""The same of an NMI, which asked the CPU for its stack."""
