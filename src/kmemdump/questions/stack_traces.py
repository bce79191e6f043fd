# SPDX-License-Identifier: GPL-2.0-or-later
"""
Stack traces of drgn's ``bt`` that say where memory is missing.

drgn prints a trace that is cut off as if it was whole, or ends with an error about a
program counter, and prints nothing of the other tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from drgn import Object
from drgn.helpers.linux.stack import LinuxKernelStack, StackSegment

from kmemdump.errors import NotCapturedError
from kmemdump.kernel.stack_end import cut_off, missing_reads
from kmemdump.kernel.task_stack import task_stack
from kmemdump.questions.drgn_internals import replace_stack_traces

__all__ = ["checked_stack_traces", "note_cut_off", "note_incomplete"]

_MOST = 3
"""Most traces that are named; of all tasks, hundreds could be cut off."""

_noted: ContextVar[list[str] | None] = ContextVar("noted", default=None)
"""What the traces lack of the command that this thread, or task, runs."""


@contextmanager
def checked_stack_traces() -> Iterator[None]:
    """
    Check the stack traces that a command prints.

    :raises NotCapturedError: At the end, if some were cut off.
    """
    noted: list[str] = []
    token = _noted.set(noted)
    try:
        yield
    except Exception as error:
        for line in _shortened(noted):
            error.add_note(line)
        raise
    finally:
        _noted.reset(token)
    if noted:
        raise NotCapturedError("; ".join(_shortened(noted)))


def _shortened(noted: list[str]) -> list[str]:
    more = len(noted) - _MOST
    return [*noted[:_MOST], *([f"and {more} more"] if more > 0 else [])]


def note_cut_off(task: str, problem: object) -> None:
    """Note that the stack trace of a task, which is named, is not whole."""
    line = f"the stack of {task} is {problem}"
    noted = _noted.get()
    if noted is not None and line not in noted:
        noted.append(line)


def note_incomplete(line: str) -> None:
    """Note why an answer is not whole, if nothing else was noted."""
    noted = _noted.get()
    if noted is not None and not noted:
        noted.append(line)


def _unwind(task: Object) -> LinuxKernelStack:
    """Unwind a task for ``bt``, and leave out frames that are wrong."""
    if _noted.get() is None:
        return task_stack(task)
    before = missing_reads(task.prog_)
    trace = task_stack(task)
    cut = cut_off(task.prog_, list(trace), before)
    if cut is None:
        return trace
    note_cut_off(f"PID {task.pid.value_()}", cut)
    kept: list[StackSegment] = []
    left = cut.frames
    for segment in trace.segments:
        if left > 0:
            kept.append(StackSegment(segment.kind, segment.frames[:left]))
        left -= len(segment.frames)
    return LinuxKernelStack(trace.prog, kept)


replace_stack_traces(_unwind)
