# SPDX-License-Identifier: GPL-2.0-or-later
"""
Part of a report: the cause of death, in one sentence.

The log tells it, if it was a panic or an oops. If a CPU hangs with interrupts off,
the log is silent, and the state of the CPUs tells.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kmemdump.diagnosis.crash_frame import find_culprit
from kmemdump.diagnosis.panic_patterns import (
    find_complaints,
    find_oops,
    find_panic,
    find_reboot,
)
from kmemdump.diagnosis.records import Cause, CauseKind, Cpu
from kmemdump.kernel.printk import LogRecord

__all__ = ["HANGS_AFTER", "Clues", "find_cause"]

HANGS_AFTER = 2.0
"""
Seconds without a timer interrupt after which a CPU is taken to hang: far above what
a busy host makes a virtual CPU wait, far below the 20 s of the kernel's own watchdog.
"""
_SUSPICIOUS_AFTER = 0.02
"""The same for a CPU that has interrupts off besides: two ticks at the lowest HZ."""
_MOST_NAMED = 3
_LOOK_AGAIN = (
    "capture it again. A CPU that hangs is still there; 'kmemdump watch' looks twice "
    "by itself."
)
_IF_SILENT = (
    "if the machine does not answer, capture it again. What hangs is still there; "
    "'kmemdump watch' looks twice by itself."
)
_AFTER_RESET = (
    "the machine was reset before its firmware copied the memory. Where nothing else "
    "tells why, a watchdog did it because a CPU hung: look at what each CPU did."
)
_FROZEN = re.compile(r"frozen: CPUs? ([\d, and]+) (served no interrupt .*)")
"""As kmemdump.watch says it."""


@dataclass(frozen=True, slots=True)
class Clues:
    """What the cause of death is derived from."""

    log: Sequence[LogRecord] | None
    """``None`` if it could not be read."""
    cpus: Sequence[Cpu]
    now: float | None = None
    """Latest time since boot that the memory knows of, in seconds."""
    panic_cpu: int | None = None
    """CPU that called ``panic()``."""
    lag: float | None = None
    """Seconds that the kernel's own clock was behind when its memory was copied."""
    witness: str = ""
    """Why the core image was written, in the words of who watched the kernel."""
    after_reset: bool = False
    """Whether the machine had been reset when the memory was copied."""


def find_cause(clues: Clues) -> Cause:
    """Return the cause of death, as far as the clues tell."""
    cause = _believe(clues, _find_cause(clues))
    if cause.advice and clues.after_reset:
        cause = replace(cause, advice=_AFTER_RESET)
    return replace(cause, frame=find_culprit(cause, clues.cpus))


def _believe(clues: Clues, cause: Cause) -> Cause:
    """Add what the core image says, if it was written for a reason."""
    if not clues.witness:
        return cause
    said = f"who watched it wrote the core image for this reason: {clues.witness}"
    frozen = _FROZEN.search(clues.witness)
    if frozen and cause.kind in (CauseKind.UNKNOWN, CauseKind.ALIVE):
        cause = _seen_frozen(clues, cause, frozen)
    return replace(cause, evidence=(said, *cause.evidence))


def _seen_frozen(clues: Clues, cause: Cause, frozen: re.Match[str]) -> Cause:
    """Believe who looked twice at what one look at memory cannot tell."""
    numbers = {int(number) for number in re.findall(r"\d+", frozen[1])}
    cpus = [cpu for cpu in clues.cpus if cpu.number in numbers]
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


def _find_cause(clues: Clues) -> Cause:
    log = clues.log or ()
    cause = find_panic(log)
    if cause is not None:
        if cause.cpu is None:
            return replace(cause, cpu=clues.panic_cpu)
        return cause
    if clues.panic_cpu is not None:
        return _silent_panic(clues)
    cause = find_reboot(log)
    if cause is not None:
        return cause
    oops = find_oops(log)
    hang = _find_hang(clues) or _find_standstill(clues)
    if hang is not None:
        before = oops.log if oops else ()
        return replace(hang, log=(*before, *find_complaints(log)))
    return oops or _alive(clues)


def _silent_panic(clues: Clues) -> Cause:
    found = [cpu for cpu in clues.cpus if cpu.number == clues.panic_cpu]
    where = _describe(found[0]) if found else ""
    return Cause(
        CauseKind.PANIC,
        f"The kernel panics on CPU {clues.panic_cpu}{where}, but no line of the log "
        "says why.",
        tuple((clues.log or ())[-5:]),
        cpu=clues.panic_cpu,
    )


def _find_hang(clues: Clues) -> Cause | None:
    """Find CPUs that are deaf to their timers while others are not."""
    deaf = [
        cpu
        for cpu in clues.cpus
        if cpu.online and cpu.silent is not None and cpu.silent > HANGS_AFTER
    ]
    if not deaf or clues.now is None:
        return None
    stuck = [cpu for cpu in deaf if not (cpu.idle and cpu.interrupts)]
    first = (stuck or deaf)[0]
    seconds = max(cpu.silent or 0 for cpu in deaf)
    if stuck:
        sentence = (
            f"{_hanging(stuck)}: no timer interrupt for {seconds:.1f} s, while "
            f"{_rest(clues, deaf)}."
        )
    else:
        sentence = (
            f"{_names(deaf)} stood still though idle, for {seconds:.1f} s: most often "
            "a host that does not run the virtual CPU."
        )
    evidence = [
        f"CPU {cpu.number}: next timer interrupt due at "
        f"{clues.now - (cpu.silent or 0):.3f} s, not taken by {clues.now:.3f} s"
        + (", interrupts are off" if cpu.interrupts is False else "")
        for cpu in deaf
    ]
    return Cause(
        CauseKind.HANG,
        sentence,
        evidence=(*evidence, *_last_word(clues)),
        cpu=first.number,
    )


def _find_standstill(clues: Clues) -> Cause | None:
    """
    Find all CPUs deaf together: the kernel's own clock stands still then.

    Nothing in its memory goes on that could tell for how long; the clock of whoever
    copied the memory does, if the kernel's was right.
    """
    online = [cpu for cpu in clues.cpus if cpu.online]
    if not online or not all(_is_deaf(cpu) for cpu in online):
        return None
    lag = clues.lag
    if lag is None or lag < HANGS_AFTER:
        return None
    return Cause(
        CauseKind.HANG,
        f"{_hanging(online, 'seem')}, with interrupts off: the kernel's clock "
        f"stopped {lag:.1f} s before its memory was copied.",
        evidence=(
            "this rests on the kernel's clock having been right: with interrupts off "
            "on all CPUs, nothing in its memory tells the time",
            *_last_word(clues),
        ),
        cpu=online[0].number,
    )


def _alive(clues: Clues) -> Cause:
    complaints = find_complaints(clues.log or ())
    if clues.log is None:
        sentence = "The cause is unknown: the kernel's log could not be read."
        return Cause(CauseKind.UNKNOWN, sentence, fatal=False)
    if all(cpu.silent is None for cpu in clues.cpus):
        return Cause(
            CauseKind.UNKNOWN,
            "The cause is unknown: the log tells of no panic, and the state of the "
            "CPUs could not be read.",
            complaints,
            _last_word(clues),
            fatal=False,
        )
    suspects = [cpu for cpu in clues.cpus if cpu.online and _is_deaf(cpu)]
    overdue = max((cpu.silent or 0 for cpu in suspects), default=0)
    alone = len(suspects) == sum(cpu.online for cpu in clues.cpus)
    if suspects and (alone or overdue > _SUSPICIOUS_AFTER):
        late = f", and its timer was {overdue:.2f} s overdue" if overdue > 0 else ""
        return Cause(
            CauseKind.UNKNOWN,
            f"CPU {suspects[0].number} may hang{_describe(suspects[0])}. It had "
            f"interrupts off{late} when its memory was copied. One look cannot tell "
            "whether that lasts.",
            complaints,
            _last_word(clues),
            suspects[0].number,
            fatal=False,
            advice=_LOOK_AGAIN,
        )
    if complaints:
        return Cause(
            CauseKind.HANG,
            "The kernel had not died, but it complained: see its lines below.",
            complaints,
            _last_word(clues),
            fatal=False,
            advice=_IF_SILENT,
        )
    return Cause(
        CauseKind.ALIVE,
        "The kernel looks alive: its log tells of no panic or oops, and all CPUs take "
        "their timer interrupts.",
        evidence=(
            *(
                f"CPU {cpu.number} had interrupts off at that moment{_describe(cpu)}"
                for cpu in suspects[:_MOST_NAMED]
            ),
            *_last_word(clues),
        ),
        fatal=False,
        advice=_IF_SILENT,
    )


def _last_word(clues: Clues) -> tuple[str, ...]:
    if not clues.log or clues.now is None:
        return ()
    at = clues.log[-1].nanoseconds / 1e9
    silence = max(clues.now - at, 0)
    if silence > HANGS_AFTER:
        return (
            f"the kernel logged nothing for {silence:.1f} s, since {at:.3f} s: that "
            "fits a hang, but a healthy kernel may be silent, too",
        )
    return (
        f"the kernel logged a line at {at:.3f} s, {silence:.1f} s before the latest "
        "time in its memory: up to then, it did not hang as a whole",
    )


def _names(cpus: Sequence[Cpu]) -> str:
    numbers = ", ".join(str(cpu.number) for cpu in cpus)
    return f"CPU {numbers}" if len(cpus) == 1 else f"CPUs {numbers}"


def _is_deaf(cpu: Cpu) -> bool:
    # Some ways to idle turn interrupts off and wait for one all the same.
    waiting = cpu.idle and not cpu.interrupted
    return cpu.interrupts is False and not waiting


def _hanging(cpus: Sequence[Cpu], seem: str = "") -> str:
    one = len(cpus) == 1
    verb = "hangs" if one else "hang"
    if seem:
        verb = f"{seem}s to hang" if one else f"{seem} to hang"
    if one:
        return f"CPU {cpus[0].number} {verb}{_describe(cpus[0])}"
    places = [f"CPU {cpu.number}{_describe(cpu)}" for cpu in cpus[:_MOST_NAMED]]
    if len(cpus) > _MOST_NAMED:
        places.append(f"{len(cpus) - _MOST_NAMED} more")
    return f"{_names(cpus)} {verb} ({'; '.join(places)})"


def _rest(clues: Clues, deaf: Sequence[Cpu]) -> str:
    others = [cpu for cpu in clues.cpus if cpu.online and cpu not in deaf]
    return "the others went on" if len(others) > 1 else "the other one went on"


def _describe(cpu: Cpu) -> str:
    """Say where a CPU is and in which task."""
    where = f" in {cpu.frames[0].place}" if cpu.frames else ""
    if cpu.task is None:
        return where
    who = "its idle task" if cpu.idle else f"task {cpu.task.title}"
    if cpu.interrupted:
        return f"{where}, called by an interrupt of {who}"
    return f"{where}, called by {who}" if where else f" in {who}"
