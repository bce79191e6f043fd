# SPDX-License-Identifier: GPL-2.0-or-later
"""Stack traces as records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from drgn import FaultError, MainModule, Object, Program, StackFrame
from drgn.helpers.linux.stack import StackKind, kernel_stack_trace

from kmemdump.diagnosis.records import Frame
from kmemdump.kernel.symbol_names import plain_name
from kmemdump.kernel.tasks import stack_of_registers

__all__ = ["find_frames", "find_frames_without_task", "find_symbol"]

_MAX_FRAMES = 200
_ENTRY = re.compile(r"el1[ht]_64_(sync|irq|fiq|error)")
"""
Entry points of exceptions within an aarch64 kernel, arch/arm64/kernel/entry.S. drgn may
unwind them by the frame record, and then does not report that code was interrupted.
"""


def find_frames(task: Object) -> tuple[tuple[Frame, ...], StackFrame | None]:
    """
    Unwind a task's kernel stack.

    :param task: ``struct task_struct *``
    :return: The frames, and drgn's first frame, which has the registers.
    :raises ValueError: If the task is running and there are no registers.
    :raises FaultError: If the stack cannot be read.
    """
    return _collect(task.prog_, _walk(task.prog_, task))


def find_frames_without_task(
    prog: Program, cpu: int
) -> tuple[tuple[Frame, ...], StackFrame | None]:
    """
    Unwind from a CPU's registers alone, as far as its stack can be read.

    :raises LookupError: If there are no registers.
    """
    return _collect(prog, ((frame, None) for frame in stack_of_registers(prog, cpu)))


def _collect(
    prog: Program, walk: Iterator[tuple[StackFrame, str | None]]
) -> tuple[tuple[Frame, ...], StackFrame | None]:
    first: StackFrame | None = None
    frames: list[Frame] = []
    for frame, kind in islice(walk, _MAX_FRAMES):
        first = first or frame
        entered = bool(frames and _ENTRY.fullmatch(frames[-1].symbol or ""))
        found = _frame(prog, frame, kind, frame.interrupted or entered)
        if found is not None:
            frames.append(found)
    return tuple(frames), first


def _walk(prog: Program, task: Object) -> Iterator[tuple[StackFrame, str | None]]:
    try:
        segments = kernel_stack_trace(task).segments
    except (LookupError, FaultError):
        # The interrupt stacks are unknown; the trace may succeed nevertheless.
        for frame in prog.stack_trace(task):
            yield frame, None
        return
    for segment in segments:
        if segment.kind == StackKind.USER:
            return
        for frame in segment.frames:
            yield frame, segment.kind.name.lower()


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


def find_symbol(
    prog: Program, address: int
) -> tuple[str | None, int | None, str | None]:
    """Return the symbol of an address, the offset in it, and the module, if known."""
    name = offset = module = None
    try:
        symbol = prog.symbol(address)
        # A vmlinux has the names that the compiler made.
        name, offset = plain_name(symbol.name), address - symbol.address
    except LookupError:
        pass
    try:
        found = prog.module(address)
        if not isinstance(found, MainModule):
            module = found.name
    except LookupError:
        pass
    return name, offset, module
