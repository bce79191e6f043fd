# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel log says of lockups, stalls and other warnings that are not fatal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kmemdump.diagnosis.log_block import kernel_records
from kmemdump.kernel.printk import LogRecord

__all__ = ["find_warnings"]

_MAX_WARNINGS = 5
_WARNINGS = re.compile(
    r"watchdog: BUG: soft lockup - |BUG: soft lockup - |[Hh]ard LOCKUP|"
    r"rcu: INFO: .* (self-)?detected stall|INFO: task .* blocked for more than|"
    r"BUG: workqueue lockup|WARNING: .*(CPU|PID): "
)


def find_warnings(records: Sequence[LogRecord]) -> tuple[LogRecord, ...]:
    """Find the last few warnings that the kernel survived."""
    own = kernel_records(records)
    found = [record for record in own if _WARNINGS.search(record.text)]
    return tuple(found[-_MAX_WARNINGS:])
