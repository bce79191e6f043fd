# SPDX-License-Identifier: GPL-2.0-or-later
"""
Stacks of tasks, also of one whose function the unwind tables leave out.

The CPU that starts a crash kernel has the registers that ``__crash_kexec()`` took, and
objtool leaves that function out of the ORC tables (STACK_FRAME_NON_STANDARD in
kernel/kexec_core.c). drgn then takes the frame pointer's register, which has anything
in a kernel with such tables, and finds a wrong caller, or none.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from drgn import FaultError, Object, Program, StackFrame, StackTrace, sizeof
from drgn.helpers.linux.stack import (
    LinuxKernelStack,
    StackKind,
    StackSegment,
    kernel_stack_trace,
)

from kmemdump.arch.architecture import arch_from_program

__all__ = ["task_stack"]

_WORD = 8
_FRAME = 1024
"""Most bytes of such a function's frame."""
_PLACE, _ENTRY = 4, 6  # An int, and struct orc_entry (asm/orc_types.h).
_REGISTER = 0xF
"""Bits of an entry's last two bytes: the caller's stack pointer; 0 is not known."""


def task_stack(task: Object) -> LinuxKernelStack:
    """
    Unwind a task's kernel stack.

    :param task: ``struct task_struct *``
    :raises ValueError: If the task is running and there are no registers.
    :raises FaultError: If the stack cannot be read.
    :raises LookupError: If the stacks of interrupts are not known.
    """
    trace = kernel_stack_trace(task)
    first = next(iter(trace), None)
    if first is None or not first.interrupted:  # It waits: its place is in the tables.
        return trace
    callers = _callers(trace.prog, first)
    if callers is None:
        return trace
    kind = trace.segments[0].kind
    segments = list(_segments(task, StackSegment(kind, [first]), callers))
    return LinuxKernelStack(trace.prog, segments)


def _callers(prog: Program, frame: StackFrame) -> StackTrace | None:
    """Return the trace that a frame's function was called from, if no table says it."""
    tables = _tables(prog)
    if tables is None:
        return None
    try:
        if frame.pc not in tables.code or tables.know(frame.pc):
            return None
        for address in range(frame.sp, frame.sp + _FRAME, _WORD):
            word: int = prog.read_u64(address)
            if word in tables.code and tables.know(word - 1):
                found = _trace_from(prog, frame, word, address + _WORD)
                if _is_likely(prog, found):
                    return found
    except (FaultError, LookupError):  # Memory, or a register, is missing.
        pass
    return None


@dataclass(frozen=True, slots=True)
class _Tables:
    """The kernel's ORC tables, in its memory."""

    prog: Program
    places: int
    entries: int
    count: int
    code: range

    def know(self, pc: int) -> bool:
        """Return whether the tables say how a place in the code is unwound."""
        number = bisect_right(range(self.count), pc, key=self._place) - 1
        if number < 0:
            return False
        entry = self.prog.read(self.entries + _ENTRY * number, _ENTRY)
        return bool(int.from_bytes(entry[4:], "little") & _REGISTER)

    def _place(self, number: int) -> int:
        """Return where an entry starts to hold: a distance from its own place."""
        address = self.places + _PLACE * number
        (offset,) = struct.unpack("<i", self.prog.read(address, _PLACE))
        return address + int(offset)


def _tables(prog: Program) -> _Tables | None:
    """Return the tables, if drgn unwinds by them alone."""
    names = arch_from_program(prog).unwind_tables
    if not names:
        return None
    try:
        if prog.main_module().debug_file_path is not None:
            return None
        entries, places, end, start, stop = (
            prog.symbol(name).address
            for name in (
                f"__start_{names[0]}",
                f"__start_{names[1]}",
                f"__stop_{names[1]}",
                "_stext",
                "_etext",
            )
        )
    except LookupError:
        return None
    return _Tables(prog, places, entries, (end - places) // _PLACE, range(start, stop))


def _trace_from(prog: Program, frame: StackFrame, pc: int, sp: int) -> StackTrace:
    """Unwind from where a function was called."""
    arch = arch_from_program(prog)
    # A call that does not return may be the last instruction of a function.
    pc -= int(prog.symbol(pc).address == pc)
    values = {name.upper(): value for name, value in frame.registers().items()}
    values |= {arch.place_registers[0]: pc, arch.stack_registers[0]: sp}
    # struct pt_regs begins as user_regs_struct does (arch/x86/include/asm/ptrace.h).
    words = [values.get(name, 0) for name in arch.registers]
    kind = prog.type("struct pt_regs")
    data = struct.pack(f"<{len(words)}Q", *words)[: sizeof(kind)]
    return prog.stack_trace(Object.from_bytes_(prog, kind, data))


def _is_likely(prog: Program, trace: StackTrace) -> bool:
    """Return whether all frames of the kernel's are code, and there are some."""
    arch = arch_from_program(prog)
    inside = [frame.pc for frame in trace if arch.is_kernel_address(frame.pc)]
    try:
        for pc in inside:
            prog.symbol(pc)
    except LookupError:
        return False
    return len(inside) > 1


def _segments(
    task: Object, segment: StackSegment, callers: StackTrace
) -> Iterator[StackSegment]:
    """Continue a segment with a trace, and divide it where code was interrupted."""
    kind, frames = segment.kind, list(segment.frames)
    for number, frame in enumerate(callers):
        if number and frame.interrupted:
            yield StackSegment(kind, frames)
            kind, frames = _kind_of(task, frame), []
        frames.append(frame)
    yield StackSegment(kind, frames)


def _kind_of(task: Object, frame: StackFrame) -> StackKind:
    prog = task.prog_
    if not arch_from_program(prog).is_kernel_address(frame.sp):
        return StackKind.USER
    start = task.stack.value_()
    on_stack = frame.sp in range(start, start + prog["THREAD_SIZE"].value_())
    return StackKind.TASK if on_stack else StackKind.UNKNOWN
