# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUs in words."""

from __future__ import annotations

from collections.abc import Sequence

from kmemdump.diagnosis.records import Cpu

__all__ = ["describe_cpu", "describe_hang", "has_interrupts_off", "name_cpus"]

_MAX_NAMED = 3


def name_cpus(cpus: Sequence[Cpu]) -> str:
    """Name CPUs by their numbers."""
    numbers = ", ".join(str(cpu.number) for cpu in cpus)
    return f"CPU {numbers}" if len(cpus) == 1 else f"CPUs {numbers}"


def has_interrupts_off(cpu: Cpu) -> bool:
    # Some idle routines turn interrupts off, but still wait for one.
    waiting = cpu.idle and not cpu.interrupted
    return cpu.interrupts is False and not waiting


def describe_hang(cpus: Sequence[Cpu], seem: str = "") -> str:
    one = len(cpus) == 1
    verb = "hangs" if one else "hang"
    if seem:
        verb = f"{seem}s to hang" if one else f"{seem} to hang"
    if one:
        return f"CPU {cpus[0].number} {verb}{describe_cpu(cpus[0])}"
    places = [f"CPU {cpu.number}{describe_cpu(cpu)}" for cpu in cpus[:_MAX_NAMED]]
    if len(cpus) > _MAX_NAMED:
        places.append(f"{len(cpus) - _MAX_NAMED} more")
    return f"{name_cpus(cpus)} {verb} ({'; '.join(places)})"


def describe_cpu(cpu: Cpu) -> str:
    """Describe in words where a CPU is, and its task."""
    where = f" in {cpu.frames[0].place}" if cpu.frames else ""
    if cpu.task is None:
        return where
    who = "its idle task" if cpu.idle else f"task {cpu.task.title}"
    if cpu.interrupted:
        return f"{where}, called by an interrupt of {who}"
    return f"{where}, called by {who}" if where else f" in {who}"
