# SPDX-License-Identifier: GPL-2.0-or-later
"""The function to blame and the signature of a cause that stacks show, and no log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from kmemdump.diagnosis.blame import Blame, blame_stack, waits_for_cpu
from kmemdump.diagnosis.records import Cause, CauseKind, Cpu, Frame
from kmemdump.diagnosis.signature import Signature
from kmemdump.diagnosis.stack_lines import StackLine, plain_function

__all__ = ["add_place", "find_culprit", "waits_for_other"]

_LOCK = re.compile(
    r"spin_lock_slowpath|(?:read|write)_lock_slowpath|osq_lock|multi_cpu_stop"
)
"""Where a CPU waits for a lock (kernel/locking/), or for all others to stop."""
_WAITING_FRAMES = 3
"""The innermost ones, of which one waits."""


def add_place(cause: Cause, cpus: Sequence[Cpu]) -> Cause:
    """Add the function to blame, and a signature, to a cause that has none."""
    if cause.function is not None:
        return cause
    if cause.signature is not None and cause.frame is None:
        return cause
    cpu = next((cpu for cpu in cpus if cpu.number == cause.cpu), None)
    blame = None if cpu is None else _blame(cpu, cause.frame or 0)
    kind = str(cause.event or cause.kind)
    if blame is None or (cause.event is not None and not _at_place(cause)):
        signature = cause.signature or Signature.of_words(kind, cause.sentence)
        return replace(cause, signature=signature)
    name = blame.function.name
    return replace(
        cause,
        function=name,
        module=blame.function.module,
        functions=blame.frames or None,
        signature=Signature.of_stacks(kind, name),
    )


def find_culprit(cpus: Sequence[Cpu]) -> Cpu:
    """
    Return which of several CPUs that hang is the cause of it.

    One that waits for a lock or for another CPU is only a victim. If all wait, the
    number of the CPU is chance; the function is the same in the next such death.
    """

    def key(cpu: Cpu) -> tuple[bool, str, int]:
        if not waits_for_other(cpu):
            return False, "", cpu.number
        blame = _blame(cpu)
        return True, (blame.function.name or "") if blame else "", cpu.number

    return min(cpus, key=key)


def waits_for_other(cpu: Cpu) -> bool:
    """Return whether a CPU waits for a lock, or for another CPU."""
    names = [frame.symbol or "" for frame in islice(cpu.frames, _WAITING_FRAMES)]
    return any(_LOCK.search(name) or waits_for_cpu(name) for name in names)


def _blame(cpu: Cpu, start: int = 0) -> Blame | None:
    return blame_stack(list(_lines(cpu.frames[start:])))


def _at_place(cause: Cause) -> bool:
    """Return whether the stack has to do with what the log says."""
    return cause.kind in (CauseKind.OOPS, CauseKind.NULL, CauseKind.HANG)


def _lines(frames: Sequence[Frame]) -> Iterator[StackLine]:
    """Yield frames, and a line without a place where they were interrupted."""
    for number, frame in enumerate(frames):
        if number and frame.interrupted:
            yield StackLine(None, "")
        if not frame.inline:
            name = plain_function(frame.symbol) if frame.symbol else None
            yield StackLine(name, frame.place, frame.module)
