# SPDX-License-Identifier: GPL-2.0-or-later
"""The cause of death that a kernel log alone names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kmemdump.diagnosis.event_kind import EventKind
from kmemdump.diagnosis.log_line import LogLine
from kmemdump.diagnosis.oops_patterns import find_oops
from kmemdump.diagnosis.panic_patterns import find_panic
from kmemdump.diagnosis.signature import Signature
from kmemdump.kernel.printk import LogRecord

__all__ = ["LogCause", "diagnose_log"]


@dataclass(frozen=True, slots=True)
class LogCause:
    """What went wrong first, according to a kernel log."""

    kind: EventKind
    sentence: str
    """For readers who do not know the kernel."""
    title: str
    """Short, in the form in which syzkaller and mailing lists name bugs."""
    signature: Signature
    function: str | None = None
    """The function to look at first, without offset or the compiler's suffixes."""
    module: str | None = None
    """The module of that function; ``None`` if it is built in, or not known."""
    frames: tuple[str, ...] = ()
    """Functions on the stack that matter, innermost first, named as *function*."""
    evidence: tuple[LogLine, ...] = ()
    """The lines that say so."""
    cpu: int | None = None
    task: str | None = None
    """Name of the task that ran."""
    pid: int | None = None
    fatal: bool = False
    """Whether the log shows that the kernel ended of it."""


def diagnose_log(lines: Sequence[LogLine]) -> LogCause | None:
    """
    Return what went wrong first; ``None`` if the log shows nothing wrong.

    :param lines: In the order in which they were logged. May be cut, and may hold lines
        of several CPUs at once.
    """
    records = [
        LogRecord(i, int((x.seconds or 0) * 1e9), 6, 0, 0, False, x.text)
        for i, x in enumerate(lines)
    ]
    cause = find_panic(records) or find_oops(records)
    if cause is None:
        return None
    kind = EventKind.PANIC if cause.fatal else EventKind.OOPS
    evidence = tuple(lines[record.sequence] for record in cause.log)
    signature = Signature.of_log(kind, None, ())
    return LogCause(
        kind,
        cause.sentence,
        str(kind),
        signature,
        evidence=evidence,
        cpu=cause.cpu,
        fatal=cause.fatal,
    )
