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


@pytest.mark.parametrize("innermost", ["__delay_cycles", "arch_timer_read_cntvct_el0"])
def test_who_waits_by_counting(innermost):
    frames = stack(f"{innermost} __delay __const_udelay poll_device die_store")
    assert blame_stack(frames).function.name == "poll_device"


def test_a_stack_that_cannot_be_walked():
    """From code without unwind tables, all but the program counter is a guess."""
    lines = [
        "watchdog: BUG: soft lockup - CPU#1 stuck for 8s! [hog:132]",
        "CPU: 1 UID: 0 PID: 132 Comm: hog Tainted: G           OE       7.3.4 #1",
        "RIP: 0010:__pi___x86_indirect_thunk_rax+0x0/0x20",
        "Call Trace:",
        " <TASK>",
        " ? never_yields+0x19/0x20 [buggy]",
        " ? hog_thread+0x9/0x10 [buggy]",
        " ? kthread+0xe5/0x120",
        " ? ret_from_fork_asm+0x1a/0x30",
        " </TASK>",
        "Kernel panic - not syncing: softlockup: hung tasks",
    ]
    found = diagnose_log(
        [LogLine(text, number, None, None) for number, text in enumerate(lines)]
    )
    assert found.function == "hog_thread"


CALLED_NULL = """\
Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000
Internal error: Oops: 0000000086000006 [#1]  SMP
CPU: 0 UID: 0 PID: 129 Comm: nginx Tainted: G           OE       7.3.4-arm64 #1
pstate: 80000005 (Nzcv daif -PAN -UAO -TCO -DIT -SSBS BTYPE=--)
pc : {pc}
lr : call_hook+0x18/0x2c [buggy]
sp : ffff800080573880
Call trace:
{first}
 die_store+0x74/0xe0 [buggy]
 param_attr_store+0xac/0x110
 module_attr_store+0x2c/0x50
---[ end trace 0000000000000000 ]---
Kernel panic - not syncing: Oops: Fatal exception"""


@pytest.mark.parametrize(
    ("pc", "first", "function"),
    [
        # What was called made no frame, and so the trace lacks the caller.
        ("0x0", " 0x0 (P)", "call_hook"),
        ("0x0", " 0x0", "call_hook"),
        # Elsewhere, the link register may be of any earlier call.
        ("reads+0x4/0x20 [buggy]", " reads+0x4/0x20 [buggy] (P)", "reads"),
    ],
)
def test_a_call_to_nowhere(pc, first, function):
    lines = CALLED_NULL.format(pc=pc, first=first).splitlines()
    found = diagnose_log(
        [LogLine(text, number, None, None) for number, text in enumerate(lines)]
    )
    assert (found.function, found.module) == (function, "buggy")


@pytest.mark.parametrize("way", ["dev_store kernfs_fop_write_iter", "load_module"])
def test_who_filled_the_stack(way):
    once = stack(f"memset step find {way}")
    assert blame_recursion(once) is None
    each_other = stack(f"memset {'step descend ' * 30} find {way}")
    assert blame_recursion(each_other) is None
    frames = stack(f"memset {'descend ' * 30} find {way}")
    assert blame_recursion(frames).function.name == "descend"
