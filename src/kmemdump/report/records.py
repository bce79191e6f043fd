# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a report says, as plain records.

A field is ``None`` where the memory did not tell; :attr:`Findings.missing` says why.
Strings come from a dead kernel: whoever shows them escapes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from kmemdump.diagnosis.records import ADDRESS, Cause, Cpu, Frame, Task
from kmemdump.kernel.printk import LogRecord

__all__ = [
    "BlockedTask",
    "Findings",
    "Interrupt",
    "KernelPart",
    "Loss",
    "MemoryMap",
    "MemoryPart",
    "Module",
    "Portion",
    "Span",
    "Taint",
    "TimePart",
]


@dataclass(frozen=True, slots=True)
class KernelPart:
    """Which kernel it was."""

    release: str
    build_id: str | None = None
    version: str | None = None
    machine: str | None = None
    """Architecture, as ``uname -m`` prints it."""
    hostname: str | None = None
    command_line: str | None = None


@dataclass(frozen=True, slots=True)
class TimePart:
    """When it was."""

    date: datetime | None = None
    """By the kernel's own clock, which stands still once the kernel does."""
    uptime: float | None = None
    """Seconds since boot, by the same clock."""
    captured: datetime | None = None
    """When the memory was copied, by the clock of whoever did it."""
    marked: datetime | None = None
    """When its regions were marked for the last time before."""

    @property
    def lag(self) -> float | None:
        """Seconds that the kernel's clock was behind when the memory was copied."""
        if self.date is None or self.captured is None:
            return None
        return (self.captured - self.date).total_seconds()


@dataclass(frozen=True, slots=True)
class BlockedTask:
    """A task that waits uninterruptibly (state D)."""

    task: Task
    frames: tuple[Frame, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """How memory was used, in bytes."""

    total: int | None = None
    free: int | None = None
    anonymous: int | None = None
    file: int | None = None
    slab: int | None = None
    swap_total: int | None = None
    swap_free: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A contiguous piece of physical memory."""

    address: int = field(metadata=ADDRESS)
    size: int


@dataclass(frozen=True, slots=True)
class Portion:
    """What was captured of memory on behalf of one area."""

    area: str
    bytes: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """What was captured, out of what there was."""

    ram: tuple[Span, ...] = ()
    """The memory that the kernel had; empty if that is not known."""
    portions: tuple[Portion, ...] = ()
    """Memory that several areas need is the first one's."""


@dataclass(frozen=True, slots=True)
class Taint:
    """A reason not to trust the kernel."""

    letter: str
    words: str


@dataclass(frozen=True, slots=True)
class Module:
    """A loaded module."""

    name: str
    address: int | None = field(default=None, metadata=ADDRESS)
    size: int | None = None
    """Bytes, of all its parts."""
    taints: tuple[Taint, ...] = ()


@dataclass(frozen=True, slots=True)
class Interrupt:
    """An interrupt that fired."""

    number: int
    names: tuple[str, ...]
    """Of its handlers."""
    count: int
    """On all CPUs, since boot."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that is not there."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What happened to a kernel."""

    source: str
    """Name of the core image or other target."""
    kernel: KernelPart
    time: TimePart
    cause: Cause
    cpus: Sequence[Cpu] = ()
    """The one on which it happened first."""
    blocked: Sequence[BlockedTask] = ()
    tasks: Sequence[Task] = ()
    load: tuple[float, float, float] | None = None
    """Averages over 1, 5 and 15 minutes."""
    memory: MemoryPart | None = None
    memory_map: MemoryMap | None = None
    modules: Sequence[Module] = ()
    taints: Sequence[Taint] = ()
    interrupts: Sequence[Interrupt] = ()
    """The busiest first."""
    log: Sequence[LogRecord] = ()
    log_lost: int = 0
    """Records whose text is lost, though they are recent enough."""
    log_overwritten: int = 0
    """Records that newer ones have taken the room of."""
    missing: Sequence[Loss] = ()
