# SPDX-License-Identifier: GPL-2.0-or-later
"""A report of a mere log: what most people have of a death."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from kmemdump.diagnosis.cause import find_cause
from kmemdump.diagnosis.log_cause import diagnose_log
from kmemdump.diagnosis.log_line import lines_of
from kmemdump.diagnosis.observations import Observations
from kmemdump.diagnosis.records import Cause, CauseKind
from kmemdump.errors import TargetError
from kmemdump.formats.logged_line import LoggedLine
from kmemdump.formats.oops_text import find_release, parse_oops
from kmemdump.kernel.printk import LogRecord
from kmemdump.logs.log_text import LogText
from kmemdump.report.fault import (
    fault_in_log,
    find_machine_name,
    lines_of_failure,
    trace_in_log,
)
from kmemdump.report.lock_lines import held_locks_in_log, waits_in_log
from kmemdump.report.records import KernelIdentity, Loss, Module, Taint, Times
from kmemdump.report.report import Report
from kmemdump.report.system import taints_of_letters

__all__ = ["gather_from_log"]

_CPU_BIT = 0x8000_0000
_KERNEL = 0
_MAX_TRIED = 20
"""How many boots of a log are looked at, the last ones."""
_COMMAND_LINE = "Kernel command line: "
_MODULES = "Modules linked in: "
_MAX_MODULES = 2000


def gather_from_log(log: LogText) -> Report:
    """
    Gather what a log says of a death.

    A log may cover several boots: the last one that ended in a death counts; else the
    last in which something went wrong; else the last one.

    :raises TargetError: If no line is a kernel's.
    """
    boots = [boot for boot in log.boots if any(x.facility == _KERNEL for x in boot)]
    boots = boots or [log.boots[-1]]
    tried = [_diagnose(boot) for boot in boots[-_MAX_TRIED:]]
    chosen = max(range(len(tried)), key=lambda i: (_weight(tried[i][1]), i))
    records, cause = tried[chosen]
    if cause.kind is CauseKind.UNKNOWN and not cause.log and not log.is_marked:
        raise TargetError(f"{log.name}: is text, and no line of it is a kernel's")
    boot = boots[-_MAX_TRIED:][chosen]
    if len(boots) > 1:
        number = len(boots) - len(tried) + chosen + 1
        evidence = (
            f"the log covers {len(boots)} boots; this report is of number {number}"
        )
        cause = replace(cause, evidence=(*cause.evidence, evidence))
    failure = lines_of_failure(records, cause)
    texts = [line.text for line in boot if line.facility == _KERNEL]
    release, version = find_release(texts)
    oops = parse_oops([record.text for record in failure])
    times = [record.nanoseconds for record in records if record.nanoseconds is not None]
    return Report(
        source=log.name,
        kernel=KernelIdentity(
            release,
            version=version,
            machine=oops.machine,
            hostname=next((line.host for line in boot if line.host), None),
            command_line=_after(texts, _COMMAND_LINE),
        ),
        time=Times(
            date=next((line.date for line in reversed(boot) if line.date), None),
            uptime=max(times) / 1e9 if times else None,
        ),
        cause=cause,
        fault=fault_in_log(failure, oops.machine),
        trace=trace_in_log(failure),
        waits=waits_in_log(records),
        locks=held_locks_in_log(records),
        hardware=find_machine_name(records),
        modules=tuple(_modules(texts)),
        taints=_taints(texts),
        log=records,
        log_lost=log.lost,
        missing=tuple(Loss(what, why) for what, why in log.problems),
    )


def _diagnose(boot: Sequence[LoggedLine]) -> tuple[tuple[LogRecord, ...], Cause]:
    records = tuple(_record(number, line) for number, line in enumerate(boot))
    cause = find_cause(Observations(records, ()))
    if cause.kind is CauseKind.UNKNOWN and not cause.log:
        sentence = (
            "The log shows nothing wrong: no panic, no oops and no warning."
            if diagnose_log(list(lines_of(records))) is None
            else cause.sentence
        )
        cause = replace(cause, sentence=sentence, evidence=(), signature=None)
    return records, cause


def _weight(cause: Cause) -> int:
    if cause.kind in (CauseKind.UNKNOWN, CauseKind.ALIVE):
        return int(bool(cause.log))
    if cause.kind is CauseKind.REBOOT:
        return 1
    return 3 if cause.fatal else 2


def _record(number: int, line: LoggedLine) -> LogRecord:
    caller = 0
    if line.caller:
        bit = _CPU_BIT if line.caller.startswith("C") else 0
        caller = min(int(line.caller[1:]), _CPU_BIT - 1) | bit
    return LogRecord(
        number, line.nanoseconds, line.level, line.facility, caller, False, line.text
    )


def _after(texts: Sequence[str], start: str) -> str | None:
    found = (text[len(start) :] for text in texts if text.startswith(start))
    return next(found, None)


def _modules(texts: Sequence[str]) -> Iterator[Module]:
    """Yield the modules of the last list in the log."""
    words = ""
    for text in texts:
        if text.startswith(_MODULES):
            words = text[len(_MODULES) :]
    names = words.partition(" [last unloaded")[0].split()[:_MAX_MODULES]
    for word in names:
        name, _, letters = word.partition("(")
        yield Module(name, taints=taints_of_letters(letters.rstrip(")+-")))


def _taints(texts: Sequence[str]) -> tuple[Taint, ...]:
    """Return the taints that the last line with any has."""
    for text in reversed(texts):
        _, found, rest = text.partition(" Tainted: ")
        if found and text.startswith(("CPU: ", "Tainted: ")):
            letters = takewhile(str.isalpha, rest.split())
            return taints_of_letters("".join(letters))
    return ()
