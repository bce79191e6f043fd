# SPDX-License-Identifier: GPL-2.0-or-later
"""
The cause of death, in one sentence.

The log names the cause of a panic or an oops. If a CPU hangs with interrupts off, the
log is silent, and the cause follows from the state of the CPUs.
"""

from __future__ import annotations

from dataclasses import replace

from kmemdump.diagnosis.callers import name_callers
from kmemdump.diagnosis.cause_place import add_place, find_culprit
from kmemdump.diagnosis.cpu_words import (
    describe_cpu,
    describe_hang,
    has_interrupts_off,
    name_cpus,
)
from kmemdump.diagnosis.crash_frame import find_crash_frame
from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.diagnosis.end_patterns import find_emergency, find_reboot
from kmemdump.diagnosis.log_findings import (
    find_oops,
    find_panic,
    find_warning,
    find_warnings,
)
from kmemdump.diagnosis.observations import Observations
from kmemdump.diagnosis.records import Cause, CauseKind
from kmemdump.diagnosis.watcher_findings import add_finding

__all__ = ["HANGS_AFTER", "find_cause"]

HANGS_AFTER = 2.0
"""
Seconds without a timer interrupt after which a CPU is taken to hang. A busy host makes
a virtual CPU wait far less; the kernel's own watchdog waits far longer, 20 s.
"""
_SUSPICIOUS_AFTER = 0.02
"""The same for a CPU that also has interrupts off: two ticks at the lowest HZ."""
_MAY_HANG = (DeathKind.HANG, DeathKind.WATCHDOG)
"""What a watcher saw does not speak against a hang that one look suggests."""
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


def find_cause(seen: Observations) -> Cause:
    """Return the cause of death, as far as it can be concluded."""
    if seen.callers:
        return _with_callers(seen)
    cause = add_finding(seen, _find_cause(seen))
    if cause.advice and seen.after_reset:
        cause = replace(cause, advice=_AFTER_RESET)
    cause = replace(cause, frame=find_crash_frame(cause, seen.cpus))
    return cause if cause.kind is CauseKind.ALIVE else add_place(cause, seen.cpus)


def _with_callers(seen: Observations) -> Cause:
    """Conclude from a log that names all callers, and show it as it is."""
    logged = seen.log or ()
    named = name_callers(logged, seen.callers)
    cause = find_cause(replace(seen, log=named, callers={}))
    original = {record.sequence: record for record in logged}
    lines = tuple(original[record.sequence] for record in cause.log)
    return replace(cause, log=lines)


def _find_cause(seen: Observations) -> Cause:
    log = seen.log or ()
    cause = find_panic(log)
    if cause is None and seen.panic_cpu is not None:
        # With a crash kernel, a fatal oops goes there before panic() says a word:
        # crash_kexec() in oops_end() (x86) and die() (arm64).
        cause = find_oops(log, fatal=True) or _silent_panic(seen)
    if cause is not None:
        return replace(cause, cpu=seen.panic_cpu) if cause.cpu is None else cause
    emergency = find_emergency(log)
    reboot = emergency or find_reboot(log)
    oops = find_oops(log)
    if reboot is not None and emergency is None:
        return _then(oops, reboot) if oops is not None else reboot
    hang = _find_hang(seen)
    if hang is None and seen.death in (None, *_MAY_HANG):
        hang = _find_standstill(seen)
    if hang is not None:
        before = oops.log if oops else ()
        hang = replace(hang, log=(*before, *find_warnings(log)))
    if emergency is None:
        return hang or oops or _alive(seen)
    # A watchdog's reset is the way out of just those hangs.
    return _then(hang, emergency) if hang is not None else emergency


def _then(first: Cause, second: Cause) -> Cause:
    """Return a cause that led to another one."""
    sentence = f"{first.sentence} {second.sentence}"
    return replace(first, sentence=sentence, log=(*first.log, *second.log))


def _silent_panic(seen: Observations) -> Cause:
    where = next((describe_cpu(c) for c in seen.cpus if c.number == seen.panic_cpu), "")
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
    first = find_culprit(stuck or late)
    seconds = max(cpu.timer_overdue or 0 for cpu in late)
    if stuck:
        many = sum(cpu.online and cpu not in late for cpu in seen.cpus) > 1
        others = "the others" if many else "the other one"
        sentence = (
            f"{describe_hang(stuck)}: no timer interrupt for {seconds:.1f} s, while "
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
    if not online or not all(has_interrupts_off(cpu) for cpu in online):
        return None
    lag = seen.clock_lag
    if lag is None or lag < HANGS_AFTER:
        return None
    return Cause(
        CauseKind.HANG,
        f"{describe_hang(online, 'seem')}, with interrupts off: the kernel's clock "
        f"stopped {lag:.1f} s before its memory was copied.",
        evidence=(
            "this is true only if the kernel's clock was right: with interrupts off on "
            "all CPUs, nothing in its memory shows the time",
            *_log_silence(seen),
        ),
        cpu=find_culprit(online).number,
    )


def _alive(seen: Observations) -> Cause:
    warnings = find_warnings(seen.log or ())
    if seen.log is None:
        sentence = "The cause is unknown: the kernel's log could not be read."
        return Cause(CauseKind.UNKNOWN, sentence, fatal=False)
    first = find_warning(seen.log)
    if first is not None and all(cpu.timer_overdue is None for cpu in seen.cpus):
        return first
    if all(cpu.timer_overdue is None for cpu in seen.cpus):
        return Cause(
            CauseKind.UNKNOWN,
            "The cause is unknown: the log shows no panic, and the state of the "
            "CPUs could not be read.",
            warnings,
            _log_silence(seen),
            fatal=False,
        )
    suspects = [cpu for cpu in seen.cpus if cpu.online and has_interrupts_off(cpu)]
    overdue = max((cpu.timer_overdue or 0 for cpu in suspects), default=0)
    alone = len(suspects) == sum(cpu.online for cpu in seen.cpus)
    if suspects and (alone or overdue > _SUSPICIOUS_AFTER):
        late = f", and its timer was {overdue:.2f} s overdue" if overdue > 0 else ""
        return Cause(
            CauseKind.UNKNOWN,
            f"CPU {suspects[0].number} may hang{describe_cpu(suspects[0])}. It had "
            f"interrupts off{late} when its memory was copied. One look cannot tell "
            "whether that lasts.",
            warnings,
            _log_silence(seen),
            suspects[0].number,
            fatal=False,
            advice=_LOOK_AGAIN,
        )
    if first is not None:
        lines = {record.sequence: record for record in (*first.log, *warnings)}
        return replace(
            first,
            sentence="The kernel had not died, but it logged a warning. "
            f"{first.sentence}",
            log=tuple(lines[number] for number in sorted(lines)),
            evidence=_log_silence(seen),
            cpu=None,
            advice=_IF_SILENT,
        )
    return Cause(
        CauseKind.ALIVE,
        "The kernel looks alive: its log shows no panic or oops, and all CPUs take "
        "their timer interrupts.",
        evidence=(
            *(
                f"CPU {cpu.number} had interrupts off at that moment{describe_cpu(cpu)}"
                for cpu in suspects[:_MAX_NAMED]
            ),
            *_log_silence(seen),
        ),
        fatal=False,
        advice=_IF_SILENT,
    )


def _log_silence(seen: Observations) -> tuple[str, ...]:
    if not seen.log or seen.now is None or seen.log[-1].nanoseconds is None:
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
