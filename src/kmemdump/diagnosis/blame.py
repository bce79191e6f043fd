# SPDX-License-Identifier: GPL-2.0-or-later
"""Which function on a stack is to blame, as who reads it would say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, pairwise

from kmemdump.diagnosis.helpers import (
    is_dispatcher,
    is_exception_code,
    is_generic_operation,
    is_helper,
    is_reporter,
)
from kmemdump.diagnosis.stack_lines import StackLine

__all__ = [
    "Blame",
    "blame_operation",
    "blame_outermost",
    "blame_recursion",
    "blame_stack",
    "is_next_function",
    "waits_for_cpu",
]

_MAX_NAMED = 8
_RECURSION = 4
"""Calls of a function by itself that are no part of its work."""
_WAITS_FOR_CPU = re.compile(
    r"smp_call_function\w*|csd_lock\w*|generic_exec_single|on_each_cpu\w*"
)
_IRQ_ENTRY = re.compile(r"el1h?_(?:64_)?irq|__irq_svc|gic_handle_irq|call_on_irq_stack")
_PAGE_FAULT = re.compile(
    r"asm_exc_page_fault|(?:async_)?page_fault|el1_(?:abort|da|sync)|el1h_64_sync|"
    r"__dabt_svc"
)
"""Where a page fault's handling ends, and what caused it follows."""
"""Where an interrupt's stack ends, on architectures that mark it by nothing else."""
_TIMER = re.compile(
    r"(?:asm_)?(?:sysvec_)?\w*apic_timer_interrupt\w*|retint_\w+|ret_from_intr|el1_irq|"
    r"el1h_64_irq(?:_handler)?|gic_handle_irq|__irq_svc|asm_sysvec\w*|irqentry_exit|"
    r"asm_call\w*|"
    r"call_on_irq\w*|"
    r"do_interrupt_handler|el1_interrupt|call_on_irq_stack|handle_exception|"
    r"ret_from_exception|"
    r"asm_common_interrupt|smp_trace_apic\w*|trace_apic\w*|.*_entry_after_kaiser\w*|"
    r"apic_timer"
)


@dataclass(frozen=True, slots=True)
class Blame:
    """Where to look first."""

    function: StackLine
    """The function to look at."""
    noticed: StackLine
    """The innermost function of the event; the same one, or a helper."""
    frames: tuple[str, ...]
    """Functions from the one to look at outwards, helpers and dispatchers left out."""


def blame_stack(frames: Sequence[StackLine], *, whole: bool = False) -> Blame | None:
    """
    Return the innermost function that did not only notice what is wrong.

    :param frames: Innermost first.
    :param whole: Whether the first one is where it happened: none is of the kernel's
        report.
    """
    sure = _sure(_until_boundary(frames))
    if not sure:
        return None
    for known in (_is_plain, _is_no_helper):
        for i, frame in enumerate(sure):
            if known(frame):
                return Blame(frame, sure[0], _names(sure[i:]))
    # All of them only noticed it. If no exception is reported, the code that handles
    # exceptions is not part of the report.
    choices = (_is_no_reporter,) if whole else (is_exception_code, _is_no_reporter)
    for chosen in choices:
        for i, frame in enumerate(sure):
            if chosen(frame.name or ""):
                return Blame(frame, sure[0], _names(sure[i:]))
    return Blame(sure[-1], sure[0], _names(sure)) if whole else None


def blame_operation(frames: Sequence[StackLine]) -> Blame | None:
    """
    Return the operation in which a CPU or task is stuck.

    One that loops is seen in any of the functions that the loop calls. What was asked
    of the kernel stays the same: the outermost function that is no general entry.
    """
    first = frames[0] if frames else None
    if first is not None and first.counter:
        # The registers are those of what was interrupted.
        sure = _sure(_until_boundary(frames))
    else:
        sure = _sure(_interrupted(frames))
    sure = _that_faulted(sure)
    if not sure:
        return None
    for i, frame in enumerate(sure[:2]):
        if waits_for_cpu(frame.name or ""):
            # What hangs is the other CPU, and not who waits for its answer.
            return Blame(frame, sure[0], _names(sure[i:]))
    best: int | None = None
    for i, frame in enumerate(sure):
        name = frame.name or ""
        if is_generic_operation(name) or is_dispatcher(name):
            if best is not None:
                best = _system_call(sure, i) or best
                break
        elif not is_helper(name):
            best = i
            if name.startswith("sys_"):
                break
    if best is None:
        # A stack that was cut may end before what was interrupted.
        return blame_stack(sure) if not is_reporter(sure[0].name or "") else None
    while best and sure[best - 1].name == (sure[best].name or "").replace(
        "compat_", ""
    ):
        best -= 1  # What is the same for 32-bit programs.
    return Blame(sure[best], sure[0], _names(sure[best:]))


def waits_for_cpu(name: str) -> bool:
    """Return whether a function waits until another CPU has answered."""
    return _WAITS_FOR_CPU.fullmatch(name) is not None


def _system_call(frames: Sequence[StackLine], start: int) -> int | None:
    """Return the system call that led to general functions, if it is a special one."""
    for i in range(start, len(frames)):
        name = frames[i].name or ""
        if name.startswith("sys_"):
            return None if is_generic_operation(name) else i
        if not is_generic_operation(name) and not is_helper(name):
            return None
    return None


def blame_outermost(frames: Sequence[StackLine]) -> Blame | None:
    """Return what was asked of the kernel, of which all else on the stack came."""
    sure = _sure(frames)
    for i in range(len(sure) - 1, -1, -1):
        name = sure[i].name or ""
        if _is_plain(sure[i]) and not is_generic_operation(name):
            return Blame(sure[i], sure[0], _names(sure))
    return blame_stack(sure)


def blame_recursion(frames: Sequence[StackLine]) -> Blame | None:
    """
    Return the function that called itself until the stack was full, if one did.

    Of several that call each other, none is more to blame than who began it.
    """
    sure = _sure(frames)
    calls = groupby(filter(_is_plain, sure), key=lambda frame: frame.name)
    for _, group in calls:
        first, *outer = group
        if len(outer) + 1 >= _RECURSION:
            return Blame(first, sure[0], _names(sure[sure.index(first) :]))
    return None


def _interrupted(frames: Sequence[StackLine]) -> Sequence[StackLine]:
    """Return what ran before the interrupt that looked at the stack."""
    at = 0
    for i, frame in enumerate(frames):
        if not frame.place:
            if not any(f.name for f in frames[i + 1 :]):
                break
            at = i + 1
            continue
        if frame.guess or not _TIMER.fullmatch(frame.name or ""):
            continue
        rest = frames[i + 1 :]
        while (
            rest
            and rest[0].place
            and (rest[0].guess or _TIMER.fullmatch(rest[0].name or ""))
        ):
            rest = rest[1:]
        if any(f.name for f in rest):
            return _until_boundary(rest)
    return frames[at:]


def _until_boundary(frames: Sequence[StackLine]) -> Sequence[StackLine]:
    """Return what ran on the same stack, or else on the next one."""
    at = 0
    for i, frame in enumerate(frames):
        if not frame.place or _IRQ_ENTRY.fullmatch(frame.name or ""):
            if any(f.name and not f.guess for f in frames[at:i]):
                return frames[at:i]
            at = i + 1
    return frames[at:]


def _that_faulted(frames: list[StackLine]) -> list[StackLine]:
    """
    Return what caused a page fault, if kernel code did.

    It is a part of what was asked of the kernel, such as a copy from a program.
    """
    for i in range(len(frames) - 1, -1, -1):
        if _PAGE_FAULT.fullmatch(frames[i].name or ""):
            rest = frames[i + 1 :]
            return rest if any(_is_plain(frame) for frame in rest) else frames
    return frames


def is_next_function(frame: StackLine, before: StackLine | None) -> bool:
    """
    Return whether a line names the function that begins where its caller ends.

    :param before: The line before, whose function is called.
    """
    if before is None or not before.place or not before.name:
        return False
    if frame.guess or frame.after_exception or frame.counter:
        return False
    return frame.start and not is_exception_code(before.name)


def _sure(frames: Sequence[StackLine]) -> list[StackLine]:
    named = [
        frame
        for before, frame in pairwise(chain([None], frames))
        if frame is not None and frame.name and not is_next_function(frame, before)
    ]
    sure = [frame for frame in named if not frame.guess]
    # Of a stack that the unwinder cannot walk, only the program counter is sure.
    return sure if any(_is_no_helper(frame) for frame in sure) else named


def _is_no_reporter(name: str) -> bool:
    return not is_reporter(name)


def _is_no_helper(frame: StackLine) -> bool:
    return frame.name is not None and not is_helper(frame.name)


def _is_plain(frame: StackLine) -> bool:
    return _is_no_helper(frame) and not is_dispatcher(frame.name or "")


def _names(frames: Sequence[StackLine]) -> tuple[str, ...]:
    names: Iterator[str] = (
        frame.name for frame in frames if frame.name and _is_plain(frame)
    )
    return tuple(dict.fromkeys(names))[:_MAX_NAMED]
