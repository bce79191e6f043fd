# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of a dead kernel, before anything is concluded from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kmemdump.diagnosis.callers import FunctionStart
from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.diagnosis.records import Cpu
from kmemdump.kernel.printk import LogRecord

__all__ = ["Observations"]


@dataclass(frozen=True, slots=True)
class Observations:
    """Facts about a dead kernel, from which the cause of death is concluded."""

    log: Sequence[LogRecord] | None
    """``None`` if it could not be read."""
    cpus: Sequence[Cpu]
    now: float | None = None
    """Latest time since boot in the memory, in seconds."""
    panic_cpu: int | None = None
    """CPU that called ``panic()``."""
    clock_lag: float | None = None
    """Seconds that the kernel's own clock was behind when its memory was copied."""
    capture_reason: str = ""
    """Why the core image was written, if a watcher wrote it."""
    death: DeathKind | None = None
    """The same in one word."""
    after_reset: bool = False
    """Whether the machine had been reset when the memory was copied."""
    callers: Mapping[FunctionStart, str] = field(default_factory=dict)
    """Places of callers for which the log names the functions behind them."""
