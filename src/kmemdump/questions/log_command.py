# SPDX-License-Identifier: GPL-2.0-or-later
"""The crash command ``log``, which needs VMCOREINFO only: neither symbols nor types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from drgn import Program
from drgn.helpers.linux.timekeeping import ktime_get_coarse_ns, ktime_get_coarse_real_ns

from kmemdump.kernel.printk import LogRecord, format_record, read_log
from kmemdump.kernel.program import NAME
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["LOG_COMMANDS"]


def _vmcoreinfo(prog: Program) -> VmcoreInfo:
    source = prog.config.get(NAME, "the kernel")
    return VmcoreInfo.parse(prog["VMCOREINFO"].string_(), source)


def _print_log(prog: Program) -> None:
    for record in _log_records(prog):
        print(format_record(record))


def _print_log_with_dates(prog: Program) -> None:
    boot = ktime_get_coarse_real_ns(prog).value_() - ktime_get_coarse_ns(prog).value_()
    for record in _log_records(prog):
        date = datetime.fromtimestamp((boot + record.nanoseconds) // 10**9, UTC)
        print(f"[{date.astimezone():%a %b %e %T %Z %Y}] {record.text}")


def _print_log_without_time(prog: Program) -> None:
    for record in _log_records(prog):
        print(record.text)


def _log_records(prog: Program) -> Iterator[LogRecord]:
    """
    Yield the records that can be read.

    :raises NotCapturedError: In the end, if records are missing.
    """
    # drgn 0.3 reads a record that wraps around the ring wrongly: it cuts off the last
    # 8 bytes and puts the block's id before the text.
    log = read_log(prog.read, _vmcoreinfo(prog))
    yield from log.records
    log.check()


LOG_COMMANDS: dict[tuple[str, ...], Callable[[Program], None]] = {
    (): _print_log,
    ("-T",): _print_log_with_dates,
    ("-t",): _print_log_without_time,
}
"""The commands by their arguments."""
