# SPDX-License-Identifier: GPL-2.0-or-later
"""The frame that is marked, on stacks as kernels leave them."""

import pytest

from kmemdump.diagnosis.crash_frame import find_crash_frame
from kmemdump.diagnosis.records import Cause, CauseKind, Cpu, Frame

WAITS = ("panic", "delay_tsc!")
PERF = ("asm_exc_nmi", "watchdog_overflow_callback", "nmi_panic")
TIMER = ("asm_sysvec_apic_timer_interrupt", "watchdog_timer_fn")
BUDDY = (*TIMER, "watchdog_buddy_check_hardlockup", "watchdog_hardlockup_check")


def cpu(*names):
    """The innermost last, as they were called; what was interrupted ends with "!"."""
    frames = [
        Frame(i, name.rstrip("!"), 1, interrupted=name.endswith("!"))
        for i, name in enumerate(reversed(names))
    ]
    return Cpu(1, online=True, frames=tuple(frames))


@pytest.mark.parametrize(
    ("kind", "names", "expected"),
    [
        (
            CauseKind.NULL,
            ("lab_die", "lab_null!", "asm_exc_page_fault", "oops_end", *WAITS),
            "lab_null",
        ),
        # At last, panic() lets interrupts in.
        (
            CauseKind.OOPS,
            ("lab_null!", "asm_exc_page_fault", *WAITS, "asm_sysvec_apic!", "x"),
            "lab_null",
        ),
        # The CPU is elsewhere by now, if only a task was killed.
        (CauseKind.OOPS, ("do_idle", "native_safe_halt!"), None),
        (
            CauseKind.NMI,
            ("do_idle", "halt!", "exc_nmi", "nmi_panic", *WAITS),
            "halt",
        ),
        (CauseKind.PANIC, ("ksys_write", "sysrq_handle_crash", *WAITS), "sysrq_"),
        (
            CauseKind.PANIC,
            ("evict!", "asm_exc_invalid_op", "__warn.cold", "vpanic", *WAITS),
            "evict",
        ),
        (CauseKind.PANIC, ("panic!",), None),
        (CauseKind.HANG, ("lab_die", "lab_spin!"), "lab_spin"),
        (CauseKind.UNKNOWN, ("lab_die", "lab_spin!"), "lab_spin"),
        (CauseKind.HANG, ("lab_spin!", *PERF, *WAITS), "lab_spin"),
        (CauseKind.HANG, ("lab_spin!", *TIMER, *WAITS), "lab_spin"),
        # Somebody else is stuck.
        (CauseKind.HANG, ("innocent!", *BUDDY, "nmi_panic", *WAITS), None),
        (CauseKind.HANG, ("kthread", "watchdog", *WAITS), None),
        (CauseKind.NULL, (), None),
    ],
)
def test_what_is_marked(kind, names, expected):
    other = Cpu(0, online=True, frames=(Frame(0, "other", interrupted=True),))
    found = cpu(*names)
    marked = find_crash_frame(Cause(kind, "It died.", cpu=1), (other, found))
    if expected is None:
        assert marked is None
    else:
        assert found.frames[marked].symbol.startswith(expected)


def test_no_cpu_is_known():
    assert find_crash_frame(Cause(CauseKind.NULL, "It died."), (cpu("x!"),)) is None
    assert find_crash_frame(Cause(CauseKind.NULL, "It died.", cpu=7), ()) is None
