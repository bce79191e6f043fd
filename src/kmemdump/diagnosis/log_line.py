# SPDX-License-Identifier: GPL-2.0-or-later
"""A line of a kernel log, whatever it was read from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kmemdump.kernel.printk import LogRecord

__all__ = ["LogLine", "lines_of"]

_CPU_BIT = 0x8000_0000
_LOG_KERN = 0
"""Facility of the kernel, include/linux/syslog.h of libc."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """
    One line that the kernel itself logged, without its prefix.

    Not a line of a process that wrote to /dev/kmsg: it can be any text.
    """

    text: str
    number: int
    """Of the line in what it was read from, from 1; of the record, in a core image."""
    seconds: float | None = None
    """Since boot."""
    caller: str | None = None
    """Who logged it: ``T123``, a thread, or ``C1``, a CPU; see CONFIG_PRINTK_CALLER."""


def lines_of(records: Sequence[LogRecord]) -> Iterator[LogLine]:
    """Yield the lines of the records that the kernel itself wrote."""
    for record in records:
        if record.facility != _LOG_KERN:
            continue
        time = record.nanoseconds
        seconds = None if time is None else time / 1e9
        number = record.caller
        kind = "C" if number & _CPU_BIT else "T"
        caller = f"{kind}{number & ~_CPU_BIT}" if number else None
        for text in record.text.split("\n"):
            yield LogLine(text, record.sequence, seconds, caller)
