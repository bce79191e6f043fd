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
    "Fault",
    "Findings",
    "Hardware",
    "HeldLock",
    "Instruction",
    "Interrupt",
    "KernelIdentity",
    "Loss",
    "MemoryMap",
    "MemoryRange",
    "MemoryUse",
    "Module",
    "Register",
    "StackGroup",
    "Taint",
    "Times",
    "TraceEntry",
    "Wait",
]


@dataclass(frozen=True, slots=True)
class KernelIdentity:
    """The identity of the kernel."""

    release: str | None
    """``None`` if a log does not say it."""
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
    build_id: str | None = None
    """In hexadecimal."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """An interrupt that fired."""

    number: int
    names: tuple[str, ...]
    """Names of its handlers."""
    count: int
    """How often it fired, on all CPUs since boot."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine, as its firmware names it."""

    name: str
    """Maker, product and board."""
    bios: str | None = None
    """Version and date of the firmware."""


@dataclass(frozen=True, slots=True)
class Register:
    """A register of the CPU on which the kernel failed."""

    name: str
    value: int = field(metadata=ADDRESS)


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction near the one that failed."""

    offset: int
    """Bytes from the one that failed; negative for those before it."""
    code: str
    """Its bytes in hexadecimal, as they stand in memory."""
    text: str | None = None
    """In assembly; ``None`` if nothing could disassemble it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The CPU at the moment when the kernel failed."""

    source: str
    """``memory``, or ``log``: what the kernel itself printed."""
    registers: Sequence[Register] = ()
    code: Sequence[Instruction] = ()
    problem: str | None = None
    """Why there is no code, or no assembly."""


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """A function of the stack trace that the kernel logged."""

    function: str
    offset: int | None = None
    """Bytes from its start."""
    size: int | None = None
    """Of the function, in bytes."""
    module: str | None = None
    source: str | None = None
    """File and line, if the log or a debug file says so."""
    reliable: bool = True
    """Whether the kernel was sure that it is a caller; ``?`` in the log if not."""
    stack: str | None = None
    """Kind of stack: ``irq``, ``nmi``, …"""


@dataclass(frozen=True, slots=True)
class Wait:
    """A task that waits for a lock, and the task that holds it."""

    waiter: Task
    lock: str
    """Kind of lock."""
    owner: Task | None = None
    """``None`` if it is not known."""
    address: int | None = field(default=None, metadata=ADDRESS)
    """Of the lock."""
    name: str | None = None
    """Of the variable that is the lock, if it is one."""
    sure: bool = True
    """Whether the owner is more than the last one that is known."""


@dataclass(frozen=True, slots=True)
class StackGroup:
    """Tasks with the same stack, which do not run."""

    tasks: tuple[Task, ...]
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock that a task holds, or waits for, according to lockdep."""

    task: Task
    lock: str
    """Name of its class."""
    at: str | None = None
    """Where it was taken."""
    address: int | None = field(default=None, metadata=ADDRESS)
    """Of lockdep's map, which is in the lock."""
    waiting: bool = False
    """Whether it is known that the task waits for it."""


UNDAMAGED = "undamaged memory"
"""What a report lacks if checksums or sizes in a core image are wrong."""


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
    fault: Fault | None = None
    trace: Sequence[TraceEntry] = ()
    """What the kernel logged of the stack, the innermost function first."""
    blocked: Sequence[BlockedTask] = ()
    waits: Sequence[Wait] = ()
    """A task that another one waits for comes after that."""
    locks: Sequence[HeldLock] = ()
    locks_stopped: bool = False
    """Whether lockdep had stopped, so that the locks may be of an earlier moment."""
    tasks: Sequence[Task] = ()
    stacks: Sequence[StackGroup] = ()
    """Of all tasks that do not run, if their stacks are there; large groups first."""
    load: tuple[float, float, float] | None = None
    """Averages over 1, 5 and 15 minutes."""
    memory: MemoryUse | None = None
    memory_map: MemoryMap | None = None
    hardware: Hardware | None = None
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
    redacted: str | None = None
    """Names of the policies by which data was removed before; ``None`` if none was."""
