# SPDX-License-Identifier: GPL-2.0-or-later
"""The cause of death where the log is silent: out of the state of the CPUs."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kmemdump.diagnosis.cause import HANGS_AFTER, find_cause
from kmemdump.diagnosis.observations import Observations
from kmemdump.diagnosis.records import CauseKind, Cpu, Frame, Task
from kmemdump.kernel.printk import LogRecord

LOG = [LogRecord(0, 5 * 10**9, 6, 0, 1, False, "GUEST-READY")]
IDLE = Cpu(
    1,
    online=True,
    idle=True,
    interrupted=False,
    task=Task(0, "swapper/1"),
    interrupts=True,
    timer_overdue=-0.2,
    frames=(Frame(0x1000, "native_safe_halt", 0xB, interrupted=True),),
)
SPINS = Cpu(
    0,
    online=True,
    idle=False,
    interrupted=False,
    task=Task(116, "sh"),
    interrupts=False,
    timer_overdue=15.0,
    frames=(
        Frame(0x2000, "lab_spin", 0xD, "kmemdump_lab", interrupted=True),
        Frame(0x3000, "lab_die", 0x5E, "kmemdump_lab"),
    ),
)
DATE = datetime(2026, 4, 1, 12, tzinfo=UTC)


def observe(*cpus, **fields):
    return Observations(**{"log": LOG, "cpus": cpus, "now": 20.0, **fields})


FROZEN = "frozen: CPU 0 served no interrupt for 10 s"


def test_who_watched_it_is_believed():
    """One look at memory tells less than many."""
    soon = replace(SPINS, timer_overdue=0.5)
    assert find_cause(observe(soon, IDLE)).kind == CauseKind.UNKNOWN
    cause = find_cause(observe(soon, IDLE, capture_reason=FROZEN))
    assert (cause.kind, cause.cpu, cause.frame) == (CauseKind.HANG, 0, 0)
    assert (cause.fatal, cause.advice) == (True, None)
    assert cause.sentence == (
        "CPU 0 hangs in lab_spin+0xd [kmemdump_lab], called by task sh (pid 116): "
        "served no interrupt for 10 s."
    )
    assert cause.evidence[0] == f"kmemdump watch wrote the core image: {FROZEN}"


def test_the_log_says_more_than_the_watcher():
    known = find_cause(observe(SPINS, IDLE))
    reason = "frozen: CPU 9 served no interrupt"
    cause = find_cause(observe(SPINS, IDLE, capture_reason=reason))
    assert (cause.sentence, cause.kind) == (known.sentence, known.kind)
    other = find_cause(observe(IDLE, capture_reason="QEMU ended unexpectedly"))
    assert other.kind == CauseKind.ALIVE
    assert "QEMU ended unexpectedly" in other.evidence[0]


def test_a_cpu_spins():
    cause = find_cause(observe(SPINS, IDLE))
    assert cause.kind == CauseKind.HANG
    assert cause.cpu == 0
    assert cause.sentence == (
        "CPU 0 hangs in lab_spin+0xd [kmemdump_lab], called by task sh (pid 116): no "
        "timer interrupt for 15.0 s, while the other one went on."
    )
    assert cause.evidence == (
        "CPU 0: next timer interrupt due at 5.000 s, not taken by 20.000 s, interrupts "
        "are off",
        "the kernel logged nothing for 15.0 s, since 5.000 s: that fits a hang, but a "
        "healthy kernel may be silent, too",
    )
    assert cause.fatal
    assert cause.frame == 0


def test_two_cpus_spin():
    also = replace(SPINS, number=1, idle=True, interrupted=True)
    third, fourth = replace(IDLE, number=2), replace(IDLE, number=3)
    cause = find_cause(observe(SPINS, also, third, fourth))
    assert cause.sentence == (
        "CPUs 0, 1 hang (CPU 0 in lab_spin+0xd [kmemdump_lab], called by task sh "
        "(pid 116); CPU 1 in lab_spin+0xd [kmemdump_lab], called by an interrupt of "
        "its idle task): no timer interrupt for 15.0 s, while the others went on."
    )


def test_without_registers():
    lost = replace(SPINS, frames=(), interrupts=None, interrupted=None, problem="none")
    cause = find_cause(observe(lost, IDLE))
    assert cause.sentence.startswith("CPU 0 hangs in task sh (pid 116): no timer")


def test_a_vcpu_that_its_host_forgot():
    late = replace(IDLE, timer_overdue=9.0)
    cause = find_cause(observe(late, replace(IDLE, number=2)))
    assert cause.kind == CauseKind.HANG
    assert "CPU 1 stood still though idle, for 9.0 s" in cause.sentence


def test_warnings_go_with_a_hang():
    line = LogRecord(
        1, 10**10, 6, 0, 1, False, "rcu: INFO: rcu_preempt detected stalls"
    )
    cause = find_cause(observe(SPINS, IDLE, log=[*LOG, line]))
    assert cause.log == (line,)


@pytest.mark.parametrize("count", [1, 2])
def test_all_cpus_spin(count):
    # Nobody keeps the clock, so no timer is overdue by it.
    cpus = [replace(SPINS, number=i, timer_overdue=-0.001) for i in range(count)]
    lag = 7.0
    cause = find_cause(observe(*cpus, now=5.1, clock_lag=lag))
    assert cause.kind == CauseKind.HANG
    assert "to hang" in cause.sentence
    assert "seem" in cause.sentence
    assert "the kernel's clock stopped 7.0 s before" in cause.sentence
    assert "only if the kernel's clock was right" in cause.evidence[0]
    # Without a clock to compare with, one look does not tell.
    for unknown in (None, 0.0):
        cause = find_cause(observe(*cpus, now=5.1, clock_lag=unknown))
        assert cause.kind == CauseKind.UNKNOWN
        assert cause.sentence == (
            "CPU 0 may hang in lab_spin+0xd [kmemdump_lab], called by task sh (pid "
            "116). It had interrupts off when its memory was copied. One look cannot "
            "tell whether that lasts."
        )
        assert (cause.cpu, cause.frame, cause.fatal) == (0, 0, False)
        assert cause.advice.startswith("capture it again. A CPU that hangs is still")


def test_a_cpu_has_just_begun_to_spin():
    cause = find_cause(observe(replace(SPINS, timer_overdue=0.4), IDLE))
    assert cause.kind == CauseKind.UNKNOWN
    assert "off, and its timer was 0.40 s overdue when" in cause.sentence
    # Any kernel turns interrupts off for a moment.
    cause = find_cause(observe(replace(SPINS, timer_overdue=0.01), IDLE))
    assert cause.kind == CauseKind.ALIVE
    assert cause.evidence[0] == (
        "CPU 0 had interrupts off at that moment in lab_spin+0xd [kmemdump_lab], "
        "called by task sh (pid 116)"
    )


def test_idle_with_interrupts_off_is_no_hang():
    # Some ways to idle wait for an interrupt with interrupts off.
    cpus = [replace(IDLE, number=i, interrupts=False) for i in range(2)]
    lag = 70.0
    assert find_cause(observe(*cpus, clock_lag=lag)).kind == CauseKind.ALIVE


def test_alive():
    late = replace(SPINS, timer_overdue=HANGS_AFTER - 0.1, interrupts=True)
    cause = find_cause(observe(IDLE, late))
    assert cause.kind == CauseKind.ALIVE
    assert cause.sentence.startswith("The kernel looks alive")
    assert (cause.cpu, cause.frame, cause.fatal) == (None, None, False)
    assert cause.advice.startswith("if the machine does not answer, capture it again")


def test_alive_but_reset():
    cause = find_cause(observe(IDLE, after_reset=True))
    assert cause.kind == CauseKind.ALIVE
    # There is nothing any more that could be captured again.
    assert cause.advice.startswith("the machine was reset before its firmware copied")


def test_alive_but_warning():
    line = LogRecord(
        1, 0, 4, 0, 1, False, "INFO: task dd:7 blocked for more than 120 s"
    )
    cause = find_cause(observe(IDLE, log=[*LOG, line]))
    assert cause.kind == CauseKind.HANG
    assert cause.sentence.startswith(
        "The kernel had not died, but it logged a warning. Task dd (pid 7) was blocked"
    )
    assert cause.log == (line,)
    assert not cause.fatal


def test_a_line_of_a_moment_ago_speaks_against_a_hang():
    cause = find_cause(observe(IDLE, now=5.3))
    assert cause.evidence == (
        "the kernel logged a line at 5.000 s, 0.3 s before the latest time in its "
        "memory: up to then, it did not hang as a whole",
    )


def test_panic_that_logged_nothing():
    cause = find_cause(observe(SPINS, IDLE, panic_cpu=0))
    assert cause.kind == CauseKind.PANIC
    assert cause.cpu == 0
    assert "no line of the log says why" in cause.sentence


def test_an_oops_that_started_the_crash_kernel():
    """crash_kexec() comes before panic() and "end trace": no line says more."""
    lines = """\
BUG: kernel NULL pointer dereference, address: 0000000000000008
#PF: supervisor write access in kernel mode
#PF: error_code(0x0002) - not-present page
Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI
CPU: 0 UID: 0 PID: 116 Comm: sh Tainted: G           OE      6.12.117 #1
RIP: 0010:lab_null+0x15/0x20 [kmemdump_lab]
Call Trace:
 <TASK>
 lab_die+0x5e/0x90 [kmemdump_lab]
 param_attr_store+0x8f/0xd0
 </TASK>
CR2: 0000000000000008"""
    log = [
        LogRecord(10 + i, 6 * 10**9, 1, 0, 116, False, line)
        for i, line in enumerate(lines.splitlines())
    ]
    cause = find_cause(observe(SPINS, IDLE, panic_cpu=0, log=[*LOG, *log]))
    assert (cause.kind, cause.cpu, cause.fatal) == (CauseKind.NULL, 0, True)
    assert cause.function == "lab_null"
    assert "in task sh (pid 116)" in cause.sentence
    assert cause.sentence.endswith(
        " The kernel ended there without logging a panic, as it does when it starts a "
        "crash kernel."
    )
    survived = find_cause(observe(IDLE, log=[*LOG, *log]))
    assert not survived.fatal
    assert survived.signature.text == cause.signature.text


def test_nothing_is_known():
    assert find_cause(Observations(None, ())).kind == CauseKind.UNKNOWN
    assert "log could not be read" in find_cause(Observations(None, ())).sentence
    blind = replace(IDLE, timer_overdue=None)
    assert find_cause(observe(blind)).kind == CauseKind.UNKNOWN


def frames(*names):
    """Return frames; "!" marks one that an interrupt hit."""
    return tuple(
        Frame(0x1000, name.rstrip("!"), 0x8, interrupted=name.endswith("!"))
        for name in names
    )


@pytest.mark.parametrize(
    ("stack", "function"),
    [
        # What loops with interrupts off, and not by which general way it was called.
        ("poll_device vfs_ioctl __x64_sys_ioctl do_syscall_64", "poll_device"),
        ("delay_tsc poll_device dev_attr_store kernfs_fop_write_iter", "poll_device"),
        ("native_queued_spin_lock_slowpath _raw_spin_lock f vfs_write", "f"),
        # In an interrupt, and not what it hit.
        ("ipi __flush_smp_call_function_queue asm_sysvec_call_function halt!", "ipi"),
        ("ipi handle_softirqs asm_sysvec_apic_timer_interrupt busy! f", "ipi"),
    ],
)
def test_signature_of_a_silent_hang(stack, function):
    cpu = replace(SPINS, frames=frames(*stack.split()))
    cause = find_cause(observe(cpu, IDLE, capture_reason=FROZEN))
    assert cause.function == function
    assert cause.signature.text == f"hang in {function}"
    assert cause.signature.source == "stacks"


@pytest.mark.parametrize("wait", ["native_queued_spin_lock_slowpath", "csd_lock_wait"])
@pytest.mark.parametrize("number", [0, 1])
def test_who_waits_for_a_cpu_that_hangs_is_not_to_blame(wait, number):
    culprit = replace(SPINS, number=number, frames=frames("loops", "f"))
    victim = replace(SPINS, number=1 - number, frames=frames(wait, "g"))
    reason = "frozen: CPUs 0 and 1 had interrupts off for 5 s"
    cause = find_cause(observe(culprit, victim, capture_reason=reason))
    assert (cause.cpu, cause.function) == (number, "loops")
    cause = find_cause(observe(culprit, victim, now=5.1, clock_lag=7.0))
    assert (cause.cpu, cause.function) == (number, "loops")


def test_a_deadlock_of_two_has_one_signature():
    wait = "native_queued_spin_lock_slowpath"
    stacks = [frames(wait, "f", "do_syscall_64"), frames(wait, "g", "do_syscall_64")]
    reason = "frozen: CPUs 0 and 1 had interrupts off for 5 s"
    found = set()
    for one, other in (stacks, stacks[::-1]):
        first = replace(SPINS, frames=one)
        second = replace(SPINS, number=1, frames=other)
        found.add(
            find_cause(observe(first, second, capture_reason=reason)).signature.text
        )
    assert found == {"hang in f"}
