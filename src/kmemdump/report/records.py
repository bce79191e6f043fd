# SPDX-License-Identifier: GPL-2.0-or-later
"""
The contents of a report, as plain records.

A field is ``None`` if it could not be read; :attr:`Findings.missing` says why. Strings
come from a dead kernel and are not escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from kmemdump.diagnosis.records import ADDRESS, Cause, Cpu, Frame, Task
from kmemdump.kernel.printk import LogRecord

__all__ = [
    "AreaMemory",
    "BlockedTask",
    "Findings",
    "Interrupt",
    "KernelIdentity",
    "Loss",
    "MemoryMap",
    "MemoryRange",
    "MemoryUse",
    "Module",
    "Taint",
    "Times",
]


@dataclass(frozen=True, slots=True)
class KernelIdentity:
    """The identity of the kernel."""

    release: str
    build_id: str | None = None
    version: str | None = None
    machine: str | None = None
    """Architecture, as ``uname -m`` prints it."""
    hostname: str | None = None
    command_line: str | None = None


@dataclass(frozen=True, slots=True)
class Times:
    """When the kernel died, and when its memory was captured."""

    date: datetime | None = None
    """By the kernel's own clock, which stops when the kernel does."""
    uptime: float | None = None
    """Seconds since boot, by the same clock."""
    captured: datetime | None = None
    """When the memory was copied, by the clock of the machine that copied it."""
    marked: datetime | None = None
    """When the regions were last marked before that."""

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
class MemoryUse:
    """How memory was used, in bytes."""

    total: int | None = None
    free: int | None = None
    anonymous: int | None = None
    file: int | None = None
    slab: int | None = None
    swap_total: int | None = None
    swap_free: int | None = None


@dataclass(frozen=True, slots=True)
class MemoryRange:
    """A contiguous range of physical memory."""

    address: int = field(metadata=ADDRESS)
    size: int


@dataclass(frozen=True, slots=True)
class AreaMemory:
    """The memory that was captured for one area."""

    name: str
    bytes: int
    ranges: tuple[MemoryRange, ...]


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """The memory that was captured, and all RAM."""

    ram: tuple[MemoryRange, ...] = ()
    """The RAM that the kernel had; empty if it is not known."""
    areas: tuple[AreaMemory, ...] = ()
    """Memory that several areas need counts for the first one."""


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
    """Size of all its parts in bytes."""
    taints: tuple[Taint, ...] = ()


@dataclass(frozen=True, slots=True)
class Interrupt:
    """An interrupt that fired."""

    number: int
    names: tuple[str, ...]
    """Names of its handlers."""
    count: int
    """How often it fired, on all CPUs since boot."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that is missing."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What happened to a kernel."""

    source: str
    """Name of the core image or other target."""
    kernel: KernelIdentity
    time: Times
    cause: Cause
    cpus: Sequence[Cpu] = ()
    """The CPU on which the kernel failed comes first."""
    blocked: Sequence[BlockedTask] = ()
    tasks: Sequence[Task] = ()
    load: tuple[float, float, float] | None = None
    """Averages over 1, 5 and 15 minutes."""
    memory: MemoryUse | None = None
    memory_map: MemoryMap | None = None
    modules: Sequence[Module] = ()
    taints: Sequence[Taint] = ()
    interrupts: Sequence[Interrupt] = ()
    """The busiest come first."""
    log: Sequence[LogRecord] = ()
    log_lost: int = 0
    """Records whose text was overwritten, or is damaged."""
    log_overwritten: int = 0
    """Older records, overwritten by newer ones."""
    missing: Sequence[Loss] = ()
