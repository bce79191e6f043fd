# SPDX-License-Identifier: GPL-2.0-or-later
"""
Patterns in the kernel log of its end: in an orderly way, or in an emergency.

emergency_restart() of kernel/reboot.c resets a machine without a word. Since Linux
kernel commit 60466c067927 ("kernel/reboot: emergency_restart: Set correct
system_state") (in v6.7) it even looks like an orderly restart, but for the log.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from kmemdump.diagnosis.log_block import kernel_records
from kmemdump.diagnosis.records import Cause, CauseKind
from kmemdump.kernel.printk import LogRecord

__all__ = ["OrderlyEnd", "find_emergency", "find_orderly_end", "find_reboot"]


class OrderlyEnd(StrEnum):
    """How a kernel ended that was told to."""

    RESTART = "restart"
    POWER_OFF = "power off"
    HALT = "halt"
    KEXEC = "kexec"


# What kernel_restart(), kernel_power_off() and kernel_halt() of kernel/reboot.c, and
# kernel_kexec() of kernel/kexec_core.c log last.
_ORDERLY = tuple(
    (re.compile(pattern), end, sentence)
    for pattern, end, sentence in (
        (
            r"reboot: Restarting system",
            OrderlyEnd.RESTART,
            "The kernel was told to restart, and did.",
        ),
        (
            r"reboot: Power down",
            OrderlyEnd.POWER_OFF,
            "The kernel was told to power the machine off, and did.",
        ),
        (
            r"reboot: (?:System halted|Power off not available)",
            OrderlyEnd.HALT,
            "The kernel was told to halt, and did.",
        ),
        (
            r"kexec(?:_core)?: Starting new kernel",
            OrderlyEnd.KEXEC,
            "The kernel was told to start another one (kexec), and did.",
        ),
    )
)

# What the kernel logs before it ends the machine because something is wrong:
# __hw_protection_trigger() of kernel/reboot.c, also before it powers off;
# softdog_fire() of drivers/watchdog/softdog.c; sysrq_handle_reboot() of
# drivers/tty/sysrq.c.
_EMERGENCIES = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        (
            r"reboot: HARDWARE PROTECTION \w+ \((.{1,80})\)",
            "The kernel ended the machine to protect its hardware ({0[1]}).",
        ),
        (
            r"thermal .*critical temperature reached",
            "The kernel ended the machine to protect its hardware (critical "
            "temperature).",
        ),
        (
            r"softdog: Initiating system reboot",
            "The software watchdog (softdog) reset the machine: nobody fed it.",
        ),
        (
            r"sysrq: Resetting",
            "Somebody asked for an immediate restart through sysrq.",
        ),
    )
)


def find_orderly_end(records: Sequence[LogRecord]) -> OrderlyEnd | None:
    """Return how the kernel ended if it was told to, and nothing was wrong."""
    own = kernel_records(records)
    if find_emergency(own) is not None:
        return None
    for record in reversed(own):
        for pattern, end, _ in _ORDERLY:
            if pattern.match(record.text):
                return end
    return None


def find_emergency(records: Sequence[LogRecord]) -> Cause | None:
    """Find why the kernel ended the machine without being told to."""
    for record in reversed(kernel_records(records)):
        for pattern, sentence in _EMERGENCIES:
            match = pattern.match(record.text)
            if match:
                return Cause(CauseKind.REBOOT, sentence.format(match), (record,))
    return None


def find_reboot(records: Sequence[LogRecord]) -> Cause | None:
    """Find an end of the kernel that it announced, orderly or not."""
    emergency = find_emergency(records)
    if emergency is not None:
        return emergency
    for record in reversed(kernel_records(records)):
        for pattern, _, sentence in _ORDERLY:
            if pattern.match(record.text):
                return Cause(CauseKind.REBOOT, sentence, (record,))
    return None
