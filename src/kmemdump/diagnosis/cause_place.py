# SPDX-License-Identifier: GPL-2.0-or-later
"""The function to blame and the signature of a cause that stacks show, and no log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kmemdump.diagnosis.blame import blame_operation, blame_stack
from kmemdump.diagnosis.records import Cause, CauseKind, Cpu, Frame
from kmemdump.diagnosis.signature import Signature
from kmemdump.diagnosis.stack_lines import StackLine, plain_function

__all__ = ["add_place"]

_HANGS = (CauseKind.HANG, CauseKind.WATCHDOG)


def add_place(cause: Cause, cpus: Sequence[Cpu]) -> Cause:
    """Add the function to blame, and a signature, to a cause that has none."""
    if cause.function is not None:
        return cause
    if cause.signature is not None and cause.frame is None:
        return cause
    cpu = next((cpu for cpu in cpus if cpu.number == cause.cpu), None)
    frames = (
        [_line(f) for f in cpu.frames[cause.frame or 0 :] if not f.inline]
        if cpu
        else []
    )
    hangs = cause.kind in _HANGS
    blame = (blame_operation if hangs else blame_stack)(frames)
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


def _at_place(cause: Cause) -> bool:
    """Return whether the stack has to do with what the log says."""
    return cause.kind in (CauseKind.OOPS, CauseKind.NULL, CauseKind.HANG)


def _line(frame: Frame) -> StackLine:
    name = plain_function(frame.symbol) if frame.symbol else None
    return StackLine(name, frame.place, frame.module)
