# SPDX-License-Identifier: GPL-2.0-or-later
"""Which function on a stack is to blame, for each way in which stacks mislead."""

import pytest

from kmemdump.diagnosis.blame import blame_operation, blame_recursion, blame_stack
from kmemdump.diagnosis.log_cause import diagnose_log
from kmemdump.diagnosis.log_line import LogLine
from kmemdump.diagnosis.stack_lines import StackLine


def stack(text):
    """Return the frames of a stack, the innermost first; "|" ends an interrupt's."""
    return [
        StackLine(None, "", after_exception=True)
        if name == "|"
        else StackLine(name, f"{name}+0x1/0x2")
        for name in text.split()
    ]


@pytest.mark.parametrize(
    ("text", "function"),
    [
        # A page fault of the kernel's own is a part of what was asked of it.
        (
            "count_events handle_mm_fault do_user_addr_fault exc_page_fault "
            "asm_exc_page_fault copy_user_generic copy_header ___sys_recvmsg "
            "do_recvmmsg sys_recvmmsg do_syscall_64",
            "sys_recvmmsg",
        ),
        # One of a program is not.
        (
            "swap_in do_swap_page handle_mm_fault do_user_addr_fault exc_page_fault "
            "asm_exc_page_fault",
            "do_swap_page",
        ),
        # What looked at the stack is an interrupt, in the words of arm64.
        (
            "rcu_sched_clock_irq tick_sched_timer gic_handle_irq call_on_irq_stack "
            "do_interrupt_handler el1_interrupt el1h_64_irq_handler el1h_64_irq "
            "lock_acquire receive ____sys_recvmsg sys_recvmmsg invoke_syscall",
            "sys_recvmmsg",
        ),
    ],
)
def test_operation(text, function):
    assert blame_operation(stack(text)).function.name == function


HELPERS = "check_preemption_disabled trace_hardirqs_on __bad_area_nosemaphore"


def test_the_code_that_handles_exceptions_may_be_wrong_itself():
    frames = stack(f"{HELPERS} do_user_addr_fault exc_page_fault")
    assert blame_stack(frames).function.name == "__bad_area_nosemaphore"
    # But if an exception is what is reported, it is only its report.
    noticed = blame_stack(frames, whole=True).function.name
    assert noticed == "check_preemption_disabled"


def test_an_outer_call_of_the_function_that_failed():
    lines = [
        "general protection fault: 0000 [#1] SMP",
        "RIP: 0010:device_del+0x7a/0xb80",
        "Call Trace:",
        " device_unregister+0x11/0x30",
        " hdm_disconnect+0xdf/0x200",
        " device_del+0x460/0xb80",
        " usb_disconnect+0x284/0x830",
        "Kernel panic - not syncing: Fatal exception",
    ]
    found = diagnose_log(
        [LogLine(text, number, None, None) for number, text in enumerate(lines)]
    )
    assert found.function == "hdm_disconnect"


@pytest.mark.parametrize("way", ["dev_store kernfs_fop_write_iter", "load_module"])
def test_who_filled_the_stack(way):
    once = stack(f"memset step find {way}")
    assert blame_recursion(once) is None
    each_other = stack(f"memset {'step descend ' * 30} find {way}")
    assert blame_recursion(each_other) is None
    frames = stack(f"memset {'descend ' * 30} find {way}")
    assert blame_recursion(frames).function.name == "descend"
