# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of a dead kernel before anything is concluded, out of its memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kmemdump.diagnosis.callers import FunctionStart, find_starts
from kmemdump.diagnosis.observations import Observations
from kmemdump.diagnosis.records import Cpu
from kmemdump.kernel.attach import Kernel
from kmemdump.kernel.code_before import find_code_before
from kmemdump.kernel.printk import Log, read_log
from kmemdump.report.cpus import find_cpus, find_now, find_panic_cpu
from kmemdump.report.records import Loss, Times
from kmemdump.report.sections import Sections
from kmemdump.report.system import find_date, find_uptime

__all__ = ["Observed", "observe"]


@dataclass(frozen=True, slots=True)
class Observed:
    """Facts about a dead kernel, and where they come from."""

    seen: Observations
    """Without what a watcher knows."""
    log: Log | None
    time: Times
    without_symbols: tuple[Loss, ...]
    """What is missing of that which needs neither symbols nor types."""


def observe(
    kernel: Kernel,
    sections: Sections,
    *,
    captured: datetime | None,
    marked: datetime | None = None,
) -> Observed:
    """
    Find out what the cause of death is concluded from; nothing is raised.

    :param captured: When the memory was copied, if that is known.
    :param marked: When the regions were marked.
    """
    prog, info = kernel.prog, kernel.vmcoreinfo
    find = sections.find
    log = find("the kernel log", lambda: read_log(prog.read, info), None)
    if log is not None:
        find("a part of the kernel log", log.check, None)
    of_log = tuple(sections.missing)
    now = find("the time of the last tick", lambda: find_now(prog), None)
    nothing: tuple[Cpu, ...] = ()
    cpus = find("the CPUs", lambda: find_cpus(prog, now), nothing)
    time = Times(
        date=find("the date", lambda: find_date(prog), None),
        uptime=find("the uptime", lambda: find_uptime(prog), None),
        captured=captured,
        marked=marked,
    )
    panic_cpu = find("the CPU that panicked", lambda: find_panic_cpu(prog), None)
    records = log.records if log else None
    starts = find_starts(records or ())
    callers: dict[FunctionStart, str] = {}
    if starts:
        callers = find(
            "callers in the log", lambda: find_code_before(prog, starts), callers
        )
    seen = Observations(
        records,
        cpus,
        now,
        panic_cpu,
        time.lag,
        callers=callers,
    )
    return Observed(seen, log, time, of_log)
