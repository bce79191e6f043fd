# SPDX-License-Identifier: GPL-2.0-or-later
"""
The frame on a stack where a kernel died.

A stack begins with the frames of later work: panic() prints, stops the other CPUs, and
waits.
"""

from __future__ import annotations

from collections.abc import Sequence

from kmemdump.diagnosis.records import Cause, CauseKind, Cpu
from kmemdump.kernel.symbol_names import base_name

__all__ = ["find_crash_frame"]

_PANICS = ("panic", "vpanic", "nmi_panic")
_WARNS = ("__warn", "check_panic_on_warn")
_HANGS = (CauseKind.HANG, CauseKind.UNKNOWN)


def find_crash_frame(cause: Cause, cpus: Sequence[Cpu]) -> int | None:
    """Return the index of the frame on the stack of the cause's CPU, if it is known."""
    cpu = next((cpu for cpu in cpus if cpu.number == cause.cpu), None)
    if cpu is None or not cpu.frames:
        return None
    names = [base_name(frame.symbol or "") for frame in cpu.frames]
    panics = [i for i, name in enumerate(names) if name in _PANICS]
    if not panics:
        # A hung CPU is still in its frame; after an oops without a panic, it went on.
        return 0 if cause.kind in _HANGS else None
    after = panics[-1] + 1
    if cause.kind is CauseKind.PANIC and not set(names[after:]) & {*_WARNS}:
        return after if after < len(names) else None
    if cause.kind is CauseKind.HANG and not _watched_itself(names):
        return None
    found = (i for i in range(after, len(names)) if cpu.frames[i].interrupted)
    return next(found, None)


def _watched_itself(names: Sequence[str]) -> bool:
    """
    Return whether the CPU that panicked is the one that was stuck.

    Both watchdogs of kernel/watchdog.c run on the CPU that they watch; that of
    kernel/watchdog_buddy.c is a timer that looks at the next CPU.
    """
    if "watchdog_overflow_callback" in names:
        return True
    return "watchdog_timer_fn" in names and "watchdog_hardlockup_check" not in names
