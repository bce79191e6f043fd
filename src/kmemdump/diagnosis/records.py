# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a diagnosis is derived from, and what it says, as plain records.

A field is ``None`` where the memory did not tell. Strings come from a dead kernel:
whoever shows them escapes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kmemdump.kernel.printk import LogRecord

__all__ = ["ADDRESS", "Cause", "CauseKind", "Cpu", "Frame", "Task"]

ADDRESS: dict[str, Any] = {"address": True}
"""Metadata of a field that is an address, which JSON shows in hexadecimal."""


class CauseKind(StrEnum):
    """How a kernel died."""

    PANIC = "panic"
    OOPS = "oops"
    NULL = "null dereference"
    HANG = "hang"
    NMI = "nmi"
    REBOOT = "reboot"
    ALIVE = "alive"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why the kernel died."""

    kind: CauseKind
    sentence: str
    """For somebody who does not know the kernel."""
    log: tuple[LogRecord, ...] = ()
    """The lines of the kernel log that tell it."""
    evidence: tuple[str, ...] = ()
    """What else tells it."""
    cpu: int | None = None
    """The CPU on which it happened."""
    frame: int | None = None
    """
    Where on that CPU's stack: the function that was interrupted, that hangs, or that
    panicked.
    """
    fatal: bool = True
    """Whether it is known that the kernel died of it."""
    advice: str | None = None
    """What to do next, if that is not known."""


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
        """As the kernel itself prints it."""
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
    """Where it ran last."""

    @property
    def title(self) -> str:
        return f"{self.comm} (pid {self.pid})"


@dataclass(frozen=True, slots=True)
class Cpu:
    """A CPU, and what ran there."""

    number: int
    online: bool
    """A panic takes all CPUs offline but the one that it is on."""
    idle: bool | None = None
    """Whether its idle task was on it."""
    interrupted: bool | None = None
    """Whether it was in an interrupt or exception."""
    task: Task | None = None
    ip: int | None = field(default=None, metadata=ADDRESS)
    """Program counter in the registers."""
    interrupts: bool | None = None
    """Whether it took interrupts, by its registers."""
    silent: float | None = None
    """Seconds for which its timer interrupt was overdue; negative if not yet due."""
    frames: tuple[Frame, ...] = ()
    problem: str | None = None
    """Why there are no frames, or those only that its registers tell of."""
