# SPDX-License-Identifier: GPL-2.0-or-later
"""The cause of death, out of what kernels log: real lines, shortened."""

import pytest

from kmemdump.diagnosis.cause import find_cause
from kmemdump.diagnosis.end_patterns import (
    OrderlyEnd,
    find_emergency,
    find_orderly_end,
    find_reboot,
)
from kmemdump.diagnosis.log_findings import (
    find_last_oops,
    find_oops,
    find_panic,
    find_warnings,
)
from kmemdump.diagnosis.observations import Observations
from kmemdump.diagnosis.records import CauseKind
from kmemdump.kernel.printk import LogRecord

CALL = "CPU: 1 PID: 116 Comm: sh Tainted: G           OE      6.1.0-56-cloud-amd64 #1"
NEW_CALL = "CPU: 1 UID: 0 PID: 116 Comm: sh Tainted: G           OE      6.12.117 #1"
IDLE = "CPU: 0 PID: 0 Comm: swapper/0 Not tainted 6.1.0-56-cloud-amd64 #1"
RIP = "RIP: 0010:lab_null+0x5/0x20 [kmemdump_lab]"
END = "---[ end trace 0000000000000000 ]---"
OOPS = (
    "BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "#PF: supervisor write access in kernel mode",
    "Oops: 0002 [#1] PREEMPT SMP NOPTI",
    CALL,
    RIP,
    "CR2: 0000000000000008 CR3: 000000000139e000",
    END,
)


def log(*lines, caller=116, facility=0):
    return [
        LogRecord(i, i * 10**9, 6, facility, caller, False, line)
        for i, line in enumerate(lines)
    ]


@pytest.mark.parametrize(
    "call", [CALL, NEW_CALL, CALL.replace("Tainted", "Kdump: loaded Tainted")]
)
def test_null_dereference_with_panic(call):
    lines = [line.replace(CALL, call) for line in OOPS]
    records = log(*lines, RIP, "Kernel panic - not syncing: Fatal exception")
    cause = find_panic(records)
    assert cause.kind == CauseKind.NULL
    assert cause.cpu == 1
    assert cause.sentence == (
        "The kernel dereferenced a NULL pointer in lab_null+0x5/0x20 [kmemdump_lab] "
        "(write at address 0x8) in task sh (pid 116) on CPU 1. The kernel panicked "
        "because panic_on_oops is set (oops=panic)."
    )
    assert cause.fatal
    assert [record.text for record in cause.log] == [
        lines[0],
        lines[2],
        call,
        RIP,
        "Kernel panic - not syncing: Fatal exception",
    ]


# Panics of die() of arch/arm64 and oops_end() of arch/x86.
@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("Oops: Fatal exception", "because panic_on_oops is set (oops=panic)."),
        (
            "Fatal exception in interrupt",
            "on CPU 1. It was in an interrupt, where that is always fatal.",
        ),
        (
            "Oops: Fatal exception in interrupt",
            "on CPU 1. It was in an interrupt, where that is always fatal.",
        ),
    ],
)
def test_why_an_oops_is_fatal(why, words):
    oops = (*OOPS[:-1], "Call Trace:", " <IRQ>", " lab_timer+0x1/0x2", " </IRQ>", END)
    cause = find_panic(log(*oops, f"Kernel panic - not syncing: {why}"))
    assert cause.kind == CauseKind.NULL
    assert cause.sentence.endswith(words)


def test_oops_without_panic():
    cause = find_oops(log("hello", *OOPS, "goodbye"))
    assert cause.kind == CauseKind.NULL
    assert cause.sentence.endswith(
        "on CPU 1. The task was killed, and the kernel went on."
    )
    assert not cause.fatal


def test_first_oops_is_the_root_and_last_one_is_news():
    second = [
        line.replace("lab_null", "other").replace("[#1]", "[#2]") for line in OOPS
    ]
    cause = find_last_oops(log(*OOPS, *second))
    assert "other+0x5" in cause.sentence
    assert "lab_null+0x5" in find_oops(log(*OOPS, *second)).sentence
    repeated = log(*OOPS, *OOPS, "more")
    assert find_last_oops(repeated).sentence.count("lab_null") == 1
    assert find_last_oops(repeated).log[0].sequence == len(OOPS)


def test_lines_of_another_cpu_in_between():
    records = log(*OOPS)
    stranger = log(
        "CPU: 0 PID: 1 Comm: init Not tainted 6.1", "RIP: 0010:elsewhere+0x1/0x2"
    )
    mixed = [records[0]]
    for record in stranger:
        mixed.append(LogRecord(99, 0, 6, 0, 1, False, record.text))
    cause = find_oops([*mixed, *records[1:]])
    assert "lab_null+0x5/0x20" in cause.sentence
    assert cause.cpu == 1


@pytest.mark.parametrize(
    ("header", "kind", "words"),
    [
        (
            "BUG: unable to handle page fault for address: ffffdeadbeef0000",
            CauseKind.OOPS,
            "used a bad pointer in lab_null+0x5/0x20 [kmemdump_lab] "
            "(access at address 0xffffdeadbeef0000)",
        ),
        (
            "Unable to handle kernel NULL pointer dereference at virtual "
            "address 0000000000000010",
            CauseKind.NULL,
            "dereferenced a NULL pointer in lab_null+0x5/0x20 [kmemdump_lab] "
            "(access at address 0x10)",
        ),
        ("kernel BUG at fs/inode.c:599!", CauseKind.OOPS, "gave up at a BUG()"),
        (
            "general protection fault, probably for non-canonical address "
            "0xdead000000000100: 0000 [#1] PREEMPT SMP",
            CauseKind.OOPS,
            "used an address that cannot exist",
        ),
        ("divide error: 0000 [#1] SMP", CauseKind.OOPS, "divided by zero"),
        (
            "BUG: TASK stack guard page was hit at ffffc90000000000",
            CauseKind.OOPS,
            "stack overflowed",
        ),
        ("Oops: 0000 [#1] SMP", CauseKind.OOPS, "exception that it cannot handle"),
    ],
)
def test_oopses(header, kind, words):
    cause = find_oops(log(header, CALL, RIP, END))
    assert cause.kind == kind
    assert words in cause.sentence
    assert cause.log[0].text == header


def test_overflow_is_no_interrupt():
    """The kernel takes the exception's stack for one."""
    end = "Kernel panic - not syncing: Fatal exception in interrupt"
    records = log("BUG: TASK stack guard page was hit at 0", CALL, RIP, END, end)
    assert find_panic(records).sentence.endswith("on CPU 1. That is always fatal.")
    # Nothing shows an interrupt's stack: only the kernel says so.
    sentence = find_panic(log(*OOPS, end)).sentence
    assert sentence.endswith("The kernel panicked: Fatal exception in interrupt.")


PANICS = [
    (
        ["sysrq: Trigger a crash"],
        "sysrq triggered crash",
        [CALL],
        CauseKind.PANIC,
        "Task sh (pid 116) made the kernel crash on purpose, through sysrq, on CPU 1.",
    ),
    (
        ["Uhhuh. NMI received for unknown reason 21 on CPU 0."],
        "NMI: Not continuing",
        [IDLE, "RIP: 0010:native_safe_halt+0xb/0x10"],
        CauseKind.NMI,
        "CPU 0 got a non-maskable interrupt (NMI) without a known reason. Most often "
        "the host or a watchdog sends one to a machine that seems dead. The kernel "
        "panicked because unknown_nmi_panic is set (or panic_on_unrecovered_nmi). The "
        "CPU was just then in native_safe_halt+0xb/0x10 of its idle task, which need "
        "not be to blame.",
    ),
    (
        ["NMI: PCI system error (SERR) for reason b1 on CPU 0."],
        "NMI: Not continuing",
        [IDLE],
        CauseKind.NMI,
        "for an error on PCI (SERR). The kernel panicked because "
        "panic_on_unrecovered_nmi is set.",
    ),
    (
        ["NMI: IOCK error (debug interrupt?) for reason 71 on CPU 0."],
        "NMI IOCK error: Not continuing",
        [IDLE],
        CauseKind.NMI,
        "for an error of an I/O device (IOCK). The kernel panicked because "
        "panic_on_io_nmi is set.",
    ),
    (
        [],
        "Attempted to kill init! exitcode=0x0000000b",
        [CALL],
        CauseKind.PANIC,
        "Process 1 (init) ended with signal 11",
    ),
    (
        [],
        "Attempted to kill init! exitcode=0x00000100",
        [CALL],
        CauseKind.PANIC,
        "Process 1 (init) ended with exit status 1",
    ),
    (
        ["watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [sh:116]", CALL, RIP],
        "softlockup: hung tasks",
        [CALL, RIP],
        CauseKind.HANG,
        "CPU 1 was stuck for 22s in lab_null+0x5/0x20 [kmemdump_lab] of task sh (pid "
        "116) without letting another task run. The kernel panicked because "
        "softlockup_panic is set.",
    ),
    (
        ["Watchdog detected hard LOCKUP on cpu 1"],
        "Hard LOCKUP",
        [CALL],
        CauseKind.HANG,
        "CPU 1 was stuck with interrupts off in task sh (pid 116). The kernel "
        "panicked because hardlockup_panic is set (nmi_watchdog=panic).",
    ),
    (
        ["Watchdog detected hard LOCKUP on cpu 3"],
        "Hard LOCKUP",
        [CALL],
        CauseKind.HANG,
        "CPU 3 was stuck with interrupts off. The kernel panicked because hard",
    ),
    (
        ["INFO: task dd:77 blocked for more than 120 seconds."],
        "hung_task: blocked tasks",
        [CALL],
        CauseKind.HANG,
        "Task dd (pid 77) was blocked for over 120 s. The kernel panicked because "
        "hung_task_panic is set.",
    ),
    (
        ["rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"],
        "RCU Stall",
        [CALL],
        CauseKind.HANG,
        "A CPU or task held up RCU for too long (a stall). The kernel panicked "
        "because panic_on_rcu_stall is set.",
    ),
    (
        ["Out of memory: Killed process 77 (dd)"],
        "System is deadlocked on memory",
        [CALL],
        CauseKind.PANIC,
        "Memory ran out in task sh (pid 116) on CPU 1, and there was no task left to",
    ),
    (
        ["dd invoked oom-killer: gfp_mask=0xcc0, order=0, oom_score_adj=0"],
        "Out of memory: system-wide panic_on_oom is enabled",
        [CALL],
        CauseKind.PANIC,
        "on CPU 1. The kernel panicked because panic_on_oom is set.",
    ),
    (
        ["VFS: Cannot open root device"],
        "VFS: Unable to mount root fs on unknown-block(0,0)",
        [],
        CauseKind.PANIC,
        "could not mount its root file system (on unknown-block(0,0)).",
    ),
    (
        [],
        "No working init found.  Try passing init= option to kernel.",
        [],
        CauseKind.PANIC,
        "no program that it could start as init",
    ),
    (
        [],
        "stack-protector: Kernel stack is corrupted in: lab_die+0x1/0x2",
        [CALL],
        CauseKind.PANIC,
        "wrote over the kernel's stack in lab_die+0x1/0x2 in task sh",
    ),
    (
        ["WARNING: CPU: 1 PID: 116 at fs/inode.c:1 evict+0x1/0x2"],
        "kernel: panic_on_warn set ...",
        [CALL],
        CauseKind.PANIC,
        "The kernel warned in evict+0x1/0x2 in task sh (pid 116) on CPU 1. The kernel "
        "panicked because panic_on_warn is set.",
    ),
    (
        ["mce: [Hardware Error]: CPU 0: Machine Check Exception"],
        "Fatal machine check",
        [],
        CauseKind.PANIC,
        "fatal hardware error",
    ),
    (
        [],
        "Never seen before.",
        [CALL],
        CauseKind.PANIC,
        "The kernel panicked in task sh (pid 116) on CPU 1: Never seen before.",
    ),
]


@pytest.mark.parametrize(("before", "why", "after", "kind", "words"), PANICS)
def test_panics(before, why, after, kind, words):
    panic = f"Kernel panic - not syncing: {why}"
    end = f"---[ end Kernel panic - not syncing: {why} ]---"
    records = log("Run /init as init process", *before, panic, *after, end)
    cause = find_panic(records)
    assert cause.kind == kind
    assert words in cause.sentence
    texts = [record.text for record in cause.log]
    assert panic in texts
    assert end not in texts
    for line in before[:1]:
        assert line in texts


def test_panic_without_context():
    cause = find_panic(log("Kernel panic - not syncing: sysrq triggered crash"))
    assert cause.sentence == "Somebody made the kernel crash on purpose, through sysrq."
    assert cause.cpu is None


def test_what_users_write_is_no_panic():
    lines = ("Kernel panic - not syncing: fake", *OOPS, "reboot: Power down")
    records = log(*lines, facility=1)
    assert find_panic(records) is None
    assert find_oops(records) is None
    assert find_reboot(records) is None
    assert find_warnings(records) == ()


def test_orderly_ends():
    cause = find_reboot(log("x", "reboot: Restarting system", "y"))
    assert cause.kind == CauseKind.REBOOT
    assert cause.sentence == "The kernel was told to restart, and did."
    assert find_emergency(log("reboot: Power down")) is None
    # A panic that is followed by a restart is a panic.
    records = log("Kernel panic - not syncing: why", "reboot: Restarting system")
    assert find_cause(Observations(records, ())).kind == CauseKind.PANIC


@pytest.mark.parametrize(
    ("lines", "end"),
    [
        (["reboot: Restarting system"], OrderlyEnd.RESTART),
        (["reboot: Restarting system with command 'x'"], OrderlyEnd.RESTART),
        (["ACPI: PM: Preparing", "reboot: Power down"], OrderlyEnd.POWER_OFF),
        (["sysrq: Power Off", "reboot: Power down"], OrderlyEnd.POWER_OFF),
        (["reboot: System halted"], OrderlyEnd.HALT),
        (
            ["reboot: Power off not available: System halted instead"],
            OrderlyEnd.HALT,
        ),
        (["kexec_core: Starting new kernel"], OrderlyEnd.KEXEC),
        ([], None),
        (["sysrq: Resetting"], None),
        (["softdog: Initiating system reboot"], None),
        # It was told to restart, hung on the way, and a watchdog ended that.
        (["reboot: Restarting system", "softdog: Initiating system reboot"], None),
        (
            [
                "reboot: HARDWARE PROTECTION shutdown (Temperature too high)",
                "reboot: Power down",
            ],
            None,
        ),
    ],
)
def test_what_is_orderly(lines, end):
    records = log("GUEST-READY", *lines, "x")
    assert find_orderly_end(records) == end
    assert find_orderly_end(log(*lines, facility=1)) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sysrq: Resetting", "immediate restart through sysrq"),
        ("softdog: Initiating system reboot", "The software watchdog (softdog)"),
        (
            "reboot: HARDWARE PROTECTION shutdown (Temperature too high)",
            "to protect its hardware (Temperature too high)",
        ),
        (
            "thermal thermal_zone0: critical temperature reached (110 C)",
            "to protect its hardware (critical",
        ),
    ],
)
def test_emergencies(line, words):
    for after in ([], ["reboot: Power down"]):
        cause = find_cause(Observations(log("x", line, *after), ()))
        assert (cause.kind, cause.fatal) == (CauseKind.REBOOT, True)
        assert words in cause.sentence
        assert [record.text for record in cause.log] == [line]


def test_warnings():
    records = log(
        "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [sh:1]",
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "INFO: task dd:77 blocked for more than 120 seconds.",
        "nothing",
    )
    assert len(find_warnings(records)) == 3
