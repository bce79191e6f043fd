# SPDX-License-Identifier: GPL-2.0-or-later
"""
The facts behind a diagnosis, and its result, as plain records.

A field is ``None`` if it could not be read. Strings come from a dead kernel and are not
escaped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kmemdump.diagnosis.event_kind import EventKind
from kmemdump.diagnosis.signature import Signature
from kmemdump.kernel.printk import LogRecord

__all__ = ["ADDRESS", "Cause", "CauseKind", "Cpu", "Frame", "Task"]

ADDRESS: dict[str, Any] = {"address": True}
"""Metadata of fields that are addresses, which JSON shows in hexadecimal."""


class CauseKind(StrEnum):
    """How a kernel died."""

    PANIC = "panic"
    OOPS = "oops"
    NULL = "null dereference"
    HANG = "hang"
    WARNING = "warning"
    """The kernel logged what is wrong, and went on."""
    NMI = "nmi"
    REBOOT = "reboot"
    """The kernel announced it, whether it was told to or in an emergency."""
    RESET = "reset"
    """The VM was reset, which the kernel did not announce."""
    TRIPLE_FAULT = "triple fault"
    WATCHDOG = "watchdog"
    """The VM's watchdog device expired."""
    VM_ENDED = "vm ended"
    """The VM ended, or lost its kernel, which the kernel did not announce."""
    ALIVE = "alive"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why the kernel died."""

    kind: CauseKind
    sentence: str
    """For readers who do not know the kernel."""
    log: tuple[LogRecord, ...] = ()
    """The lines of the kernel log that say so."""
    evidence: tuple[str, ...] = ()
    """Other reasons for this conclusion."""
    cpu: int | None = None
    """The CPU on which the kernel failed."""
    frame: int | None = None
    """
    Index on that CPU's stack, from 0, of the function that was interrupted, that hangs,
    or that panicked.
    """
    fatal: bool = True
    """Whether the kernel is known to have died of this cause."""
    advice: str | None = None
    """What to do next, if *fatal* is false."""
    event: EventKind | None = None
    """What it died of; finer than *kind*."""
    function: str | None = None
    """The function to look at first, without offset or the compiler's suffixes."""
    module: str | None = None
    """The module of that function; ``None`` if it is built in, or not known."""
    functions: tuple[str, ...] | None = None
    """Functions on the stack that matter, innermost first, named as *function*."""
    title: str | None = None
    """Short, in the form in which mailing lists name bugs."""
    signature: Signature | None = None
    """The same for two deaths of one bug."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One function on a stack."""

    pc: int = field(metadata=ADDRESS)
    symbol: str | None = None
    offset: int | None = None
    """Bytes from the start of the function."""
    module: str | None = None
    source: str | None = None
    """File and line, with a vmlinux."""
    inline: bool = False
    interrupted: bool = False
    """Whether an interrupt or exception hit here."""
    stack: str | None = None
    """Kind of stack: ``task``, ``irq``, ``nmi``, ``exception``, …"""

    @property
    def place(self) -> str:
        """Function and offset, as the kernel prints them."""
        if self.symbol is None:
            name = f"{self.pc:#x}"
        elif self.offset is None or self.inline:
            name = self.symbol
        else:
            name = f"{self.symbol}+{self.offset:#x}"
        return f"{name} [{self.module}]" if self.module else name


@dataclass(frozen=True, slots=True)
class Task:
    """A task."""

    pid: int
    comm: str
    state: str | None = None
    """One letter, as ``ps`` prints it."""
    cpu: int | None = None
    """The CPU on which it ran last."""

    @property
    def title(self) -> str:
        return f"{self.comm} (pid {self.pid})"


@dataclass(frozen=True, slots=True)
class Cpu:
    """A CPU, and what ran there."""

    number: int
    online: bool
    """A panic takes all other CPUs offline."""
    idle: bool | None = None
    """Whether it ran its idle task."""
    interrupted: bool | None = None
    """Whether it was in an interrupt or exception."""
    task: Task | None = None
    ip: int | None = field(default=None, metadata=ADDRESS)
    """Program counter in the registers."""
    interrupts: bool | None = None
    """Whether it took interrupts, according to its registers."""
    timer_overdue: float | None = None
    """Seconds for which its timer interrupt was overdue; negative if not yet due."""
    frames: tuple[Frame, ...] = ()
    problem: str | None = None
    """Why there are no frames, or only some."""
