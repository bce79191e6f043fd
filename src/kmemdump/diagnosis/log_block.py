# SPDX-License-Identifier: GPL-2.0-or-later
"""
The records of the kernel log that the kernel itself wrote.

Only the kernel's own lines count. A process that may write to /dev/kmsg can write any
text, but not with the kernel's facility (devkmsg_write() in kernel/printk/printk.c).
"""

from __future__ import annotations

from collections.abc import Sequence

from kmemdump.kernel.printk import LogRecord

__all__ = ["END_TRACE", "kernel_records"]

_LOG_KERN = 0  # Facility of the kernel, include/linux/syslog.h of libc.
END_TRACE = "---[ end trace"


def kernel_records(records: Sequence[LogRecord]) -> list[LogRecord]:
    """Return the records that the kernel itself wrote."""
    return [record for record in records if record.facility == _LOG_KERN]
