# SPDX-License-Identifier: GPL-2.0-or-later
"""
The cause of death, in one sentence.

The log names the cause of a panic or an oops. If a CPU hangs with interrupts off, the
log is silent, and the cause follows from the state of the CPUs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kmemdump.diagnosis.crash_frame import find_crash_frame
from kmemdump.diagnosis.oops_patterns import find_oops, find_warnings
from kmemdump.diagnosis.panic_patterns import find_panic, find_reboot
from kmemdump.diagnosis.records import Cause, CauseKind, Cpu
from kmemdump.kernel.printk import LogRecord

__all__ = ["HANGS_AFTER", "Observations", "find_cause", "name_cpus"]

HANGS_AFTER = 2.0
"""
Seconds without a timer interrupt after which a CPU is taken to hang. A busy host makes
a virtual CPU wait far less; the kernel's own watchdog waits far longer, 20 s.
"""
_SUSPICIOUS_AFTER = 0.02
"""The same for a CPU that also has interrupts off: two ticks at the lowest HZ."""
_MAX_NAMED = 3
_LOOK_AGAIN = (
    "capture it again. A CPU that hangs is still there; 'kmemdump watch' looks twice "
    "by itself."
)
_IF_SILENT = (
    "if the machine does not answer, capture it again. What hangs is still there; "
    "'kmemdump watch' looks twice by itself."
)
_AFTER_RESET = (
    "the machine was reset before its firmware copied the memory. If there is no other "
    "reason, a watchdog did it because a CPU hung: look at what each CPU did."
)
_FROZEN = re.compile(
    r"frozen: CPUs? ([\d, and]+) (served no interrupt .*|had interrupts off .*)"
)
"""The message of kmemdump.watch."""


@dataclass(frozen=True, slots=True)
class Observations:
    """Facts about a dead kernel, from which the cause of death is concluded."""

    log: Sequence[LogRecord] | None
    """``None`` if it could not be read."""
    cpus: Sequence[Cpu]
    now: float | None = None
    """Latest time since boot in the memory, in seconds."""
    panic_cpu: int | None = None
    """CPU that called ``panic()``."""
    clock_lag: float | None = None
    """Seconds that the kernel's own clock was behind when its memory was copied."""
    capture_reason: str = ""
    """Why the core image was written, if a watcher wrote it."""
    after_reset: bool = False
    """Whether the machine had been reset when the memory was copied."""


def find_cause(seen: Observations) -> Cause:
    """Return the cause of death, as far as it can be concluded."""
    cause = _add_capture_reason(seen, _find_cause(seen))
    if cause.advice and seen.after_reset:
        cause = replace(cause, advice=_AFTER_RESET)
    return replace(cause, frame=find_crash_frame(cause, seen.cpus))


def _add_capture_reason(seen: Observations, cause: Cause) -> Cause:
    """Add why the core image was written, if the image says so."""
    if not seen.capture_reason:
        return cause
    reason = f"the core image was written for this reason: {seen.capture_reason}"
    frozen = _FROZEN.search(seen.capture_reason)
    if frozen and cause.kind in (CauseKind.UNKNOWN, CauseKind.ALIVE):
        cause = _frozen_cause(seen, cause, frozen)
    return replace(cause, evidence=(reason, *cause.evidence))


def _frozen_cause(seen: Observations, cause: Cause, frozen: re.Match[str]) -> Cause:
    """Adopt the finding of a watcher, which looked twice: one look cannot prove it."""
    numbers = {int(number) for number in re.findall(r"\d+", frozen[1])}
    cpus = [cpu for cpu in seen.cpus if cpu.number in numbers]
    if not cpus:
        return cause
    return replace(
        cause,
        kind=CauseKind.HANG,
        sentence=f"{_hanging(cpus)}: {frozen[2]}.",
        cpu=cpus[0].number,
        fatal=True,
        advice=None,
    )


def _find_cause(seen: Observations) -> Cause:
    log = seen.log or ()
    cause = find_panic(log)
    if cause is not None:
        return replace(cause, cpu=seen.panic_cpu) if cause.cpu is None else cause
    if seen.panic_cpu is not None:
        return _silent_panic(seen)
    cause = find_reboot(log)
    if cause is not None:
        return cause
    oops = find_oops(log)
    hang = _find_hang(seen) or _find_standstill(seen)
    if hang is not None:
        before = oops.log if oops else ()
        return replace(hang, log=(*before, *find_warnings(log)))
    return oops or _alive(seen)


def _silent_panic(seen: Observations) -> Cause:
    where = next((_describe(c) for c in seen.cpus if c.number == seen.panic_cpu), "")
    return Cause(
        CauseKind.PANIC,
        f"The kernel panics on CPU {seen.panic_cpu}{where}, but no line of the log "
        "says why.",
        tuple((seen.log or ())[-5:]),
        cpu=seen.panic_cpu,
    )


def _find_hang(seen: Observations) -> Cause | None:
    """Find CPUs whose timer interrupt is overdue, while others take theirs."""
    late = [
        cpu
        for cpu in seen.cpus
        if cpu.online and (cpu.timer_overdue or 0) > HANGS_AFTER
    ]
    if not late or seen.now is None:
        return None
    stuck = [cpu for cpu in late if not (cpu.idle and cpu.interrupts)]
    first = (stuck or late)[0]
    seconds = max(cpu.timer_overdue or 0 for cpu in late)
    if stuck:
        many = sum(cpu.online and cpu not in late for cpu in seen.cpus) > 1
        others = "the others" if many else "the other one"
        sentence = (
            f"{_hanging(stuck)}: no timer interrupt for {seconds:.1f} s, while "
            f"{others} went on."
        )
    else:
        sentence = (
            f"{name_cpus(late)} stood still though idle, for {seconds:.1f} s: most "
            "often a host that does not run the virtual CPU."
        )
    evidence = [
        f"CPU {cpu.number}: next timer interrupt due at "
        f"{seen.now - (cpu.timer_overdue or 0):.3f} s, not taken by {seen.now:.3f} s"
        + (", interrupts are off" if cpu.interrupts is False else "")
        for cpu in late
    ]
    return Cause(
        CauseKind.HANG,
        sentence,
        evidence=(*evidence, *_log_silence(seen)),
        cpu=first.number,
    )


def _find_standstill(seen: Observations) -> Cause | None:
    """
    Find out whether all CPUs have interrupts off, which stops the kernel's own clock.

    Its memory cannot show for how long. The clock of the machine that copied the memory
    can, if the kernel's clock was right.
    """
    online = [cpu for cpu in seen.cpus if cpu.online]
    if not online or not all(_has_interrupts_off(cpu) for cpu in online):
        return None
    lag = seen.clock_lag
    if lag is None or lag < HANGS_AFTER:
        return None
    return Cause(
        CauseKind.HANG,
        f"{_hanging(online, 'seem')}, with interrupts off: the kernel's clock "
        f"stopped {lag:.1f} s before its memory was copied.",
        evidence=(
            "this is true only if the kernel's clock was right: with interrupts off on "
            "all CPUs, nothing in its memory shows the time",
            *_log_silence(seen),
        ),
        cpu=online[0].number,
    )


def _alive(seen: Observations) -> Cause:
    warnings = find_warnings(seen.log or ())
    if seen.log is None:
        sentence = "The cause is unknown: the kernel's log could not be read."
        return Cause(CauseKind.UNKNOWN, sentence, fatal=False)
    if all(cpu.timer_overdue is None for cpu in seen.cpus):
        return Cause(
            CauseKind.UNKNOWN,
            "The cause is unknown: the log shows no panic, and the state of the "
            "CPUs could not be read.",
            warnings,
            _log_silence(seen),
            fatal=False,
        )
    suspects = [cpu for cpu in seen.cpus if cpu.online and _has_interrupts_off(cpu)]
    overdue = max((cpu.timer_overdue or 0 for cpu in suspects), default=0)
    alone = len(suspects) == sum(cpu.online for cpu in seen.cpus)
    if suspects and (alone or overdue > _SUSPICIOUS_AFTER):
        late = f", and its timer was {overdue:.2f} s overdue" if overdue > 0 else ""
        return Cause(
            CauseKind.UNKNOWN,
            f"CPU {suspects[0].number} may hang{_describe(suspects[0])}. It had "
            f"interrupts off{late} when its memory was copied. One look cannot tell "
            "whether that lasts.",
            warnings,
            _log_silence(seen),
            suspects[0].number,
            fatal=False,
            advice=_LOOK_AGAIN,
        )
    if warnings:
        return Cause(
            CauseKind.HANG,
            "The kernel had not died, but it logged warnings: see below.",
            warnings,
            _log_silence(seen),
            fatal=False,
            advice=_IF_SILENT,
        )
    return Cause(
        CauseKind.ALIVE,
        "The kernel looks alive: its log shows no panic or oops, and all CPUs take "
        "their timer interrupts.",
        evidence=(
            *(
                f"CPU {cpu.number} had interrupts off at that moment{_describe(cpu)}"
                for cpu in suspects[:_MAX_NAMED]
            ),
            *_log_silence(seen),
        ),
        fatal=False,
        advice=_IF_SILENT,
    )


def _log_silence(seen: Observations) -> tuple[str, ...]:
    if not seen.log or seen.now is None:
        return ()
    at = seen.log[-1].nanoseconds / 1e9
    silence = max(seen.now - at, 0)
    if silence > HANGS_AFTER:
        return (
            f"the kernel logged nothing for {silence:.1f} s, since {at:.3f} s: that "
            "fits a hang, but a healthy kernel may be silent, too",
        )
    return (
        f"the kernel logged a line at {at:.3f} s, {silence:.1f} s before the latest "
        "time in its memory: up to then, it did not hang as a whole",
    )


def name_cpus(cpus: Sequence[Cpu]) -> str:
    """Name CPUs by their numbers."""
    numbers = ", ".join(str(cpu.number) for cpu in cpus)
    return f"CPU {numbers}" if len(cpus) == 1 else f"CPUs {numbers}"


def _has_interrupts_off(cpu: Cpu) -> bool:
    # Some idle routines turn interrupts off, but still wait for one.
    waiting = cpu.idle and not cpu.interrupted
    return cpu.interrupts is False and not waiting


def _hanging(cpus: Sequence[Cpu], seem: str = "") -> str:
    one = len(cpus) == 1
    verb = "hangs" if one else "hang"
    if seem:
        verb = f"{seem}s to hang" if one else f"{seem} to hang"
    if one:
        return f"CPU {cpus[0].number} {verb}{_describe(cpus[0])}"
    places = [f"CPU {cpu.number}{_describe(cpu)}" for cpu in cpus[:_MAX_NAMED]]
    if len(cpus) > _MAX_NAMED:
        places.append(f"{len(cpus) - _MAX_NAMED} more")
    return f"{name_cpus(cpus)} {verb} ({'; '.join(places)})"


def _describe(cpu: Cpu) -> str:
    """Describe in words where a CPU is, and its task."""
    where = f" in {cpu.frames[0].place}" if cpu.frames else ""
    if cpu.task is None:
        return where
    who = "its idle task" if cpu.idle else f"task {cpu.task.title}"
    if cpu.interrupted:
        return f"{where}, called by an interrupt of {who}"
    return f"{where}, called by {who}" if where else f" in {who}"
