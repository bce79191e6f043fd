# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel log says of an orderly end."""

from __future__ import annotations

from collections.abc import Sequence

from kmemdump.diagnosis.log_block import kernel_records
from kmemdump.diagnosis.records import Cause, CauseKind
from kmemdump.kernel.printk import LogRecord

__all__ = ["find_reboot"]

_REBOOTS = {
    "reboot: Restarting system": "The kernel was told to restart, and did.",
    "reboot: Power down": "The kernel was told to power the machine off, and did.",
    "reboot: System halted": "The kernel was told to halt, and did.",
    "sysrq: Resetting": "Somebody asked for an immediate restart through sysrq.",
}


def find_reboot(records: Sequence[LogRecord]) -> Cause | None:
    """Find an orderly end of the kernel."""
    for record in reversed(kernel_records(records)):
        for start, sentence in _REBOOTS.items():
            if record.text.startswith(start):
                return Cause(CauseKind.REBOOT, sentence, (record,))
    return None
