# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs of the field: repeats, errors that hurt nothing, reboots, names of drivers."""

import pytest

from kmemdump.logs.read import parse_log
from kmemdump.report.from_log import gather_from_log

OOPS = """\
BUG: kernel NULL pointer dereference, address: 0000000000000008
Oops: 0000 [#1] PREEMPT SMP
CPU: 1 PID: 1234 Comm: foo Not tainted 6.1.0 #1
RIP: 0010:foo_ioctl+0x10/0x20 [foo]
Call Trace:
 <TASK>
 foo_ioctl+0x10/0x20 [foo]
 __x64_sys_ioctl+0x10/0x20
 </TASK>
---[ end trace 0000000000000000 ]---
""".splitlines()
WAITING = "unregister_netdevice: waiting for eth0 to become free. Usage count = 1"
GHES = (
    "{1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 0",
    "{1}[Hardware Error]: event severity: %s",
    "{1}[Hardware Error]:   section_type: memory error",
)
NOTHING = "The log shows nothing wrong: no panic, no oops and no warning."


def report(*texts):
    lines = ["Linux version 6.1.0 (a@b) #1", *texts]
    log = "".join(f"[{i / 1000:12.6f}] {text}\n" for i, text in enumerate(lines, 1000))
    return gather_from_log(parse_log(log.encode(), "x"))


def said(*texts):
    return report(*texts).cause.sentence


@pytest.mark.parametrize("end", [(), ("Kernel panic - not syncing: Fatal exception",)])
def test_an_oops_behind_a_thousand_repeats(end):
    found = said(*([WAITING] * 1000), *OOPS, *end)
    assert "NULL pointer in foo_ioctl" in found
    assert "in task foo (pid 1234) on CPU 1" in found


def test_init_that_ends_long_after_an_oops_of_another_task():
    ends = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00"
    assert said(*OOPS, ends) == (
        "Process 1 (init) ended with exit status 127, and nothing goes on without it."
    )
    of_init = [line.replace("1234 Comm: foo", "1 Comm: init") for line in OOPS]
    assert "NULL pointer in foo_ioctl" in said(*of_init, ends)


def test_how_severe_an_error_is_that_firmware_reports():
    head, severity, section = GHES
    assert said(head, severity % "corrected", section) == NOTHING
    corrected = (it.replace("{1}", "{2}") for it in (head, severity % "corrected"))
    found = said(head, severity % "fatal", section, *corrected)
    assert found.startswith("Firmware reported a fatal error of memory")
    found = said(head, severity % "recoverable", section)
    assert found.startswith("Firmware reported a recoverable error of memory")
    found = said(
        head, severity % "fatal", section, "Kernel panic - not syncing: GHES: Fatal"
    )
    assert found.startswith("Firmware reported a fatal error of memory")


def test_a_machine_check_that_was_found_later():
    assert said("mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 5: bea0") == (
        "The processor had logged a hardware error, maybe before the last reset. "
        "The kernel went on."
    )


def test_an_oops_before_a_reboot_in_order():
    found = said(*OOPS, "reboot: Restarting system")
    assert "NULL pointer in foo_ioctl" in found
    assert found.endswith("The kernel was told to restart, and did.")


@pytest.mark.parametrize(
    "line",
    [
        "mydrv 0000:01:00.0: DEBUG: queue 3 ready",
        "mydrv DEBUG init: done",
        "qla2xxx [0000:03:00.0]: Internal error: mailbox timeout",
    ],
)
def test_what_drivers_say_is_no_event(line):
    assert said(line) == NOTHING


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("simd exception: 0000 [#1] PREEMPT SMP", "an exception that it cannot handle"),
        ("alignment check: 0000 [#1] SMP", "an exception that it cannot handle"),
        ("Internal error: SP/PC alignment exception: 8a000000 [#1] SMP", "not aligned"),
        ("Internal error: Oops - SP/PC alignment: 8a000000 [#1] SMP", "not aligned"),
    ],
)
def test_exceptions_of_any_name(line, words):
    found = said(line, "CPU: 1 PID: 1234 Comm: foo Not tainted 6.1.0 #1")
    assert words in found
    assert "in task foo (pid 1234)" in found


@pytest.mark.parametrize(
    "line",
    [
        f"1 lock held by a/{'9' * 5000}:",
        f"INFO: task a:{'9' * 5000} blocked on a mutex likely owned by task b:1",
    ],
)
def test_numbers_of_thousands_of_digits(line):
    assert said(line, "Kernel panic - not syncing: x") == "The kernel panicked: x."


def test_a_thousand_ends_of_interrupts():
    ends = [" </IRQ>"] * 990
    panic = "Kernel panic - not syncing: Fatal exception"
    found = said(OOPS[0], "Call Trace:", " ? foo+0x1/0x20", *ends, panic, *ends)
    assert found.startswith("The kernel dereferenced a NULL pointer")


def test_who_holds_a_semaphore():
    found = report(
        "INFO: task cat:117 blocked for more than 120 seconds.",
        "INFO: task cat:117 <reader> blocked on an rw-semaphore likely owned by "
        "task holder:99 <writer>",
    )
    (wait,) = found.waits
    assert (wait.waiter.pid, wait.owner.pid) == (117, 99)


def test_a_log_is_shown_as_it_is():
    """Not as rich's emoji, nor as its markup."""
    lines = ("mac 52:ab:00:12:34:56", "2001:1234:5", "foo:key:bar", "[bold]x[/] [/y]")
    text = report(*lines, "Kernel panic - not syncing: x:bug:y [/z]").to_text()
    for line in (*lines, "x:bug:y [/z]"):
        assert line in text


@pytest.mark.parametrize("user", ["0", "1000", "x"])
def test_a_task_is_found_where_its_user_is_masked(user):
    """As policy share leaves the line of 6.12 and later."""
    lines = [it.replace("CPU: 1 PID", f"CPU: 1 UID: {user} PID") for it in OOPS]
    assert "in task foo (pid 1234) on CPU 1" in said(*lines)
