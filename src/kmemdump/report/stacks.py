# SPDX-License-Identifier: GPL-2.0-or-later
"""Stack traces as records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import NamedTuple

from drgn import FaultError, Object, Program, StackFrame, StackTrace
from drgn.helpers.linux.stack import StackKind, StackSegment

from kmemdump.arch.architecture import arch_from_program
from kmemdump.diagnosis.records import Frame
from kmemdump.kernel.stack_end import cut_off, missing_reads
from kmemdump.kernel.symbol_at import find_symbol
from kmemdump.kernel.task_stack import task_stack
from kmemdump.kernel.tasks import stack_of_registers
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["Stack", "find_frames", "find_frames_without_task"]

_MAX_FRAMES = 200
_ENTRY = re.compile(r"el1[ht]_64_(sync|irq|fiq|error)")
"""
Entry points of exceptions within an aarch64 kernel, arch/arm64/kernel/entry.S. drgn may
unwind them by the frame record, and then does not report that code was interrupted.
"""


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack trace."""

    frames: tuple[Frame, ...]
    first: StackFrame | None
    """drgn's first frame, which has the registers."""
    problem: str | None
    """Why frames are missing, if they are."""


def find_frames(task: Object) -> Stack:
    """
    Unwind a task's kernel stack.

    :param task: ``struct task_struct *``
    :raises ValueError: If the task is running and there are no registers.
    :raises FaultError: If the stack cannot be read.
    """
    prog = task.prog_
    before = missing_reads(prog)
    try:
        segments = task_stack(task).segments
    except (LookupError, FaultError):
        # The interrupt stacks are unknown; the trace may succeed nevertheless.
        before = missing_reads(prog)
        return _collect(prog, _of_no_kind(prog.stack_trace(task)), before)
    found = [it for segment in segments for it in _frames_of(segment)]
    return _collect(prog, found, before)


class _Found(NamedTuple):
    """A frame of drgn's."""

    frame: StackFrame
    kind: StackKind | None
    interrupted: bool


def _frames_of(segment: StackSegment) -> Iterator[_Found]:
    # What was interrupted starts a segment. Within one it was called, and drgn went on
    # from registers that task_stack() found.
    is_first = True
    for frame in segment.frames:
        yield _Found(frame, segment.kind, frame.interrupted and is_first)
        is_first = is_first and frame.is_inline


def _of_no_kind(frames: Iterable[StackFrame]) -> list[_Found]:
    return [_Found(frame, None, frame.interrupted) for frame in frames]


def find_frames_without_task(prog: Program, cpu: int) -> Stack:
    """
    Unwind from a CPU's registers alone, as far as its stack can be read.

    :raises LookupError: If there are no registers, or those of a program.
    """
    before = missing_reads(prog)
    trace = stack_of_registers(prog, cpu)
    if not arch_from_program(prog).is_kernel_address(trace[0].pc):
        raise LookupError("it ran a program, and no kernel code")
    return _collect(prog, _of_no_kind(_believed(prog, trace)), before)


def _believed(prog: Program, trace: StackTrace) -> Iterator[StackFrame]:
    """
    Yield the frames of a trace, of a kernel without types up to one that is no code.

    Such a kernel has no unwind tables either. drgn then follows frame pointers, and
    takes any word for one if the kernel is built without them.
    """
    frames = iter(trace)
    try:
        prog.type("struct pt_regs")
    except LookupError:
        info = VmcoreInfo.parse(prog["VMCOREINFO"].string_(), "VMCOREINFO")
        image = arch_from_program(prog).image(info)
        code = range(image.virtual, image.virtual + image.size)
        yield from islice(frames, 1)
        yield from takewhile(lambda frame: frame.pc in code, frames)
    else:
        yield from frames


def _collect(prog: Program, found: Sequence[_Found], before: int) -> Stack:
    cut = cut_off(prog, [it.frame for it in found], before)
    if cut is not None:
        found = found[: cut.frames]
    frames: list[Frame] = []
    for frame, kind, interrupted in found[:_MAX_FRAMES]:
        if kind is StackKind.USER:
            break
        entered = bool(frames and _ENTRY.fullmatch(frames[-1].symbol or ""))
        stack = None if kind is None else kind.name.lower()
        record = _frame(prog, frame, stack, interrupted or entered)
        if record is not None:
            frames.append(record)
    first = next((it.frame for it in found if it.kind is not StackKind.USER), None)
    problem = None if cut is None else f"the trace is {cut}"
    return Stack(tuple(frames), first, problem)


def _frame(
    prog: Program, frame: StackFrame, kind: str | None, interrupted: bool
) -> Frame | None:
    try:
        pc = frame.pc
    except LookupError:
        return None
    # A return address may be the start of the next function.
    address = pc - int(pc > 0 and not interrupted)
    symbol, offset, module = find_symbol(prog, address)
    source = None
    try:
        path, line, _ = frame.source()
        source = f"{path}:{line}"
    except LookupError:
        pass
    if frame.is_inline:
        return Frame(pc, frame.name, None, module, source, inline=True, stack=kind)
    if offset is not None:
        offset += pc - address
    return Frame(
        pc, symbol, offset, module, source, interrupted=interrupted, stack=kind
    )
