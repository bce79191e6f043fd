# SPDX-License-Identifier: GPL-2.0-or-later
"""
Stack traces that end, or go astray, because memory is missing.

Where drgn cannot read the caller of a frame, it ends the trace, or guesses by what is
in the frame pointer's register, and says nothing: in a dump that lacks a part of a
stack, such a trace looks like a whole one.

A whole trace ends without a read that fails: in user mode, or where unwind tables or a
null frame pointer say that nothing called the function. So a trace is in doubt only if
memory was missing while drgn unwound. By a kernel's own unwind tables, drgn reads
nothing but what it needs: then the trace is cut off, if not before, at its end. By a
vmlinux, it also reads the values of registers that the trace does not need: then each
frame must have its program counter from memory that is there, and the last one must not
need memory that is missing. A kernel that has tables may use the frame pointer for
anything: a caller that only this leads to, past memory that is missing, is a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from drgn import FaultError, Program, StackFrame

from kmemdump.arch.architecture import arch_from_program
from kmemdump.kernel.program import RECORDER
from kmemdump.memory.recorder import Recorder

__all__ = ["CutOff", "cut_off", "missing_reads"]

_WORD = 8
_FRAME = 512  # More than struct pt_regs, and than most frames.
_STACK = 16 << 10
"""Most bytes of a frame; most stacks are as large."""
_RED = 64
"""Bytes that a stack pointer may have moved since it was saved."""
_UNSIGNED = (1 << 36) - 1
"""Bits of a return address that are no signature of it (Arm's FEAT_PAuth)."""


@dataclass(frozen=True, slots=True)
class CutOff:
    """Why a stack trace is not whole."""

    frames: int
    """How many of its frames are right."""
    address: int | None
    """Virtual address of the memory that is missing; ``None`` if it is not known."""
    physical: int | None
    """Physical address of memory that is missing, if any is."""

    def __str__(self) -> str:
        if self.address is not None:
            return f"cut off: memory at {self.address:#x} is missing"
        if self.physical is not None:
            return f"cut off: physical memory at {self.physical:#x} is missing"
        return "cut off: a return address cannot be read"


def missing_reads(prog: Program) -> int:
    """Return how many reads of *prog* failed until now, for :func:`cut_off`."""
    recorder: Recorder | None = prog.config.get(RECORDER)
    return recorder.misses if recorder is not None else 0


def cut_off(prog: Program, frames: Sequence[StackFrame], before: int) -> CutOff | None:
    """
    Return why a stack trace is not whole, or ``None`` if it is.

    Call it before anything else is read.

    :param frames: All frames of the trace.
    :param before: What :func:`missing_reads` returned before the stack was unwound.
    """
    recorder: Recorder | None = prog.config.get(RECORDER)
    missing = None
    if recorder is not None and recorder.misses > before:
        missing = recorder.last_missing
    places = [_Place(frame) for frame in frames]
    right = _count_right(prog, places, missing is not None)
    if right < len(places):
        address = _missing_address(prog, places[:right])
        return CutOff(right, address, missing)
    if recorder is None or missing is None:
        return None
    for address, size in _needed(prog, places[-1]) if places else ():
        if _is_missing(prog, address, size) and recorder.last_missing == missing:
            return CutOff(right, address, missing)
    if _has_debug_file(prog):
        return None
    return CutOff(right, _missing_address(prog, places), missing)


def _has_tables(prog: Program) -> bool:
    """Return whether drgn unwinds by tables, and not by the frame pointer alone."""
    for name in arch_from_program(prog).unwind_tables:
        with suppress(LookupError):
            prog.symbol(f"__start_{name}")
            return True
    return _has_debug_file(prog)


def _has_debug_file(prog: Program) -> bool:
    try:
        return prog.main_module().debug_file_path is not None
    except LookupError:
        return False


class _Place:
    """The registers of a frame that matter."""

    def __init__(self, frame: StackFrame) -> None:
        self.registers = frame.registers()
        self.pc: int | None = None
        self.sp: int | None = None
        try:
            self.pc = frame.pc
            self.sp = frame.sp
        except LookupError:
            pass


def _count_right(prog: Program, places: Sequence[_Place], in_doubt: bool) -> int:
    """Return how many frames are right, from the first one on."""
    has_tables = in_doubt and _has_tables(prog)
    for number, place in enumerate(places):
        if place.pc is None:
            return number
        is_last = number + 1 == len(places)
        if in_doubt and number:
            callee = places[number - 1]
            if not _is_caller(prog, callee, place, is_last):
                return number
            if has_tables and _is_guess(prog, callee, place):
                return number
    return len(places)


def _is_caller(prog: Program, place: _Place, caller: _Place, is_last: bool) -> bool:
    """Return whether the program counter of a caller comes from where it should."""
    arch = arch_from_program(prog)
    pc, sp = caller.pc or 0, caller.sp
    if (pc, sp) == (place.pc, place.sp):
        return True  # Inlined.
    if not (_is_code(prog, pc) if arch.is_kernel_address(pc) else is_last):
        return False  # User mode is last.
    if place.registers.get(arch.link_register) == pc:
        return True
    ranges = []
    record = _frame_record(prog, place)
    if record is not None:
        ranges.append((record + _WORD, _WORD))
    if place.sp is not None:
        near = sp is not None and 0 <= sp - place.sp <= _STACK
        ranges.append((place.sp, max(_FRAME, sp - place.sp) if near and sp else _FRAME))
        if sp is not None and (near or _leads_to(prog, place.sp, sp)):
            ranges.append((sp - _WORD, _WORD))
    return any(
        (word ^ pc) & _UNSIGNED == 0
        for start, size in ranges
        for word in _words(prog, start, size)
    )


def _is_guess(prog: Program, place: _Place, caller: _Place) -> bool:
    """Return whether the frame pointer leads to a caller past missing memory."""
    arch = arch_from_program(prog)
    record: int | None = place.registers.get(arch.frame_pointer)
    if record is None or place.sp is None or caller.sp != record + 2 * _WORD:
        return False
    if _frame_record(prog, place) is None:
        # Unwind tables find the caller on another stack by what is at the end of this
        # one. On Arm, the first record of an interrupt's stack leads to it.
        return bool(arch.unwind_tables)
    return any(
        _is_missing(prog, address, _WORD) for address in range(place.sp, record, _WORD)
    )


def _is_code(prog: Program, pc: int) -> bool:
    try:
        prog.module(pc)
    except LookupError:
        return False
    return True


def _leads_to(prog: Program, start: int, sp: int) -> bool:
    """Return whether a frame has the stack pointer of a caller on another stack."""
    return any(0 <= sp - word <= _RED for word in _words(prog, start, _FRAME))


def _words(prog: Program, start: int, size: int) -> Iterator[int]:
    """Yield the words of a range that can be read."""
    for address in range(start, start + size, _WORD):
        try:
            word: int = prog.read_u64(address)
        except FaultError:
            continue
        yield word


def _frame_record(prog: Program, place: _Place) -> int | None:
    """Return the address of a frame record, if the frame pointer may point to one."""
    record: int | None = place.registers.get(arch_from_program(prog).frame_pointer)
    if not record:
        return None
    # A register for any purpose, if it does not point into the stack.
    if place.sp is not None and not 0 <= record - place.sp < _STACK:
        return None
    return record


def _needed(prog: Program, place: _Place) -> Iterator[tuple[int, int]]:
    """Yield addresses and sizes of the reads that find the caller of the last frame."""
    record = _frame_record(prog, place)
    if record is not None:
        yield record, 2 * _WORD
    if place.sp is not None:
        for address in range(place.sp, place.sp + _FRAME, _WORD):
            yield address, _WORD


def _missing_address(prog: Program, places: Sequence[_Place]) -> int | None:
    """Return the first address that the last frame needs and that cannot be read."""
    if not places:
        return None
    for address, size in _needed(prog, places[-1]):
        if _is_missing(prog, address, size):
            return address
    return None


def _is_missing(prog: Program, address: int, size: int) -> bool:
    before = missing_reads(prog)
    try:
        prog.read(address, size)
    except FaultError:
        return missing_reads(prog) > before
    return False
