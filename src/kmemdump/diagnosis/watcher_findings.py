# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a watcher saw from outside, added to what the dead kernel's memory says.

The memory of a kernel that was reset, or whose VM ended, often shows a kernel that
lives. Only who watched it knows better.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from kmemdump.diagnosis.cause_place import find_culprit, waits_for_other
from kmemdump.diagnosis.cpu_words import (
    describe_cpu,
    describe_hang,
    has_interrupts_off,
)
from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.diagnosis.observations import Observations
from kmemdump.diagnosis.records import Cause, CauseKind, Cpu
from kmemdump.kernel.symbol_names import base_name

__all__ = ["add_finding"]

_FROZEN = re.compile(
    r"frozen: CPUs? ([\d, and]+) "
    r"((?:served no interrupt|had interrupts off|stood halted with interrupts off) .*)"
)
"""The message of kmemdump.watch about CPUs,"""
_CLOCK = re.compile(r"frozen: (the kernel's clock stands still for .*)")
"""and about a kernel whose clock stands still."""

_RESTARTS = (
    *("emergency_restart", "machine_emergency_restart", "machine_restart"),
    *("native_machine_emergency_restart", "native_machine_restart"),
    *("acpi_reboot", "acpi_reset", "do_kernel_restart", "psci_sys_reset"),
)
"""Functions by which a kernel resets its machine, the outermost first."""
_BEFORE = "before that, the log shows: "


def add_finding(seen: Observations, cause: Cause) -> Cause:
    """Add why the core image was written, if the image says so."""
    frozen = _frozen_cause(seen, cause)
    if frozen is not None:
        cause = frozen
    elif seen.death in _FINDINGS and not cause.fatal:
        cause = _FINDINGS[seen.death](seen, cause)
    if seen.capture_reason:
        reason = f"kmemdump watch wrote the core image: {seen.capture_reason}"
        cause = replace(cause, evidence=(reason, *cause.evidence))
    return cause


def _frozen_cause(seen: Observations, cause: Cause) -> Cause | None:
    """Adopt that something hangs: the watcher looked twice, one look proves nothing."""
    # It may have been told to restart, and hang before it did.
    if cause.fatal and cause.kind is not CauseKind.REBOOT:
        return None
    stands = _CLOCK.search(seen.capture_reason)
    if stands:
        return _adopt(cause, CauseKind.HANG, f"The kernel hangs: {stands[1]}.")
    frozen = _FROZEN.search(seen.capture_reason)
    if frozen is None:
        return None
    numbers = {int(number) for number in re.findall(r"\d+", frozen[1])}
    cpus = [cpu for cpu in seen.cpus if cpu.number in numbers]
    if not cpus:
        return None
    sentence = f"{describe_hang(cpus)}: {frozen[2]}."
    return _adopt(cause, CauseKind.HANG, sentence, find_culprit(cpus))


def _adopt(
    cause: Cause,
    kind: CauseKind,
    sentence: str,
    cpu: Cpu | None = None,
    evidence: Sequence[str] = (),
) -> Cause:
    """Return a cause of death by what was seen from outside."""
    before: tuple[str, ...] = ()
    if cause.kind not in (CauseKind.ALIVE, CauseKind.UNKNOWN):
        before = (f"{_BEFORE}{cause.sentence}",)
    elif cause.kind is CauseKind.UNKNOWN and kind is not CauseKind.HANG:
        before = (cause.sentence,)
    return replace(
        cause,
        kind=kind,
        sentence=sentence,
        evidence=(*evidence, *before, *cause.evidence),
        cpu=cpu.number if cpu is not None else None,
        fatal=True,
        advice=None,
    )


def _reset(seen: Observations, cause: Cause) -> Cause:
    """Conclude from the stacks who reset the machine without a word."""
    for cpu in seen.cpus:
        names = [base_name(frame.symbol or "") for frame in cpu.frames]
        found = [i for i, name in enumerate(names) if name in _RESTARTS]
        if not found:
            continue
        caller = cpu.frames[found[-1] + 1 :][:1]
        where = describe_cpu(replace(cpu, frames=caller))
        return _adopt(
            cause,
            CauseKind.RESET,
            f"The kernel restarted the machine at once (emergency restart){where}.",
            cpu,
            (f"CPU {cpu.number} was in {names[found[0]]}()",),
        )
    if seen.death is DeathKind.TRIPLE_FAULT:
        return _triple_fault(seen, cause)
    return _adopt(
        cause,
        CauseKind.RESET,
        "The guest reset the VM, and its log does not say why.",
    )


def _triple_fault(seen: Observations, cause: Cause) -> Cause:
    evidence = (
        "the kernel was not going down, and its log announces no restart: a triple "
        "fault does that, or a write to the reset register",
    )
    running = [
        cpu
        for cpu in seen.cpus
        # A CPU that waits for a lock runs as it should.
        if cpu.frames and not cpu.idle and not waits_for_other(cpu)
    ]
    off = [cpu for cpu in running if has_interrupts_off(cpu)]
    likely = off if len(off) == 1 else running
    cpu = likely[0] if len(likely) == 1 else None
    if cpu is None:
        sentence = "The VM reset itself while the kernel ran, as by a triple fault."
        return _adopt(cause, CauseKind.TRIPLE_FAULT, sentence, None, evidence)
    sentence = (
        f"A triple fault reset the VM: CPU {cpu.number} could handle neither an "
        f"exception nor the faults that followed{describe_cpu(cpu)}."
    )
    return _adopt(cause, CauseKind.TRIPLE_FAULT, sentence, cpu, evidence)


def _because(kind: CauseKind, sentence: str) -> Callable[[Observations, Cause], Cause]:
    return lambda _, cause: _adopt(cause, kind, sentence)


_FINDINGS: Mapping[DeathKind | None, Callable[[Observations, Cause], Cause]] = {
    DeathKind.PANIC: _because(
        CauseKind.PANIC,
        "The guest said that it panicked, but no line of its log says why.",
    ),
    DeathKind.WATCHDOG: _because(
        CauseKind.WATCHDOG,
        "The VM's watchdog expired: nothing in the guest fed it in time.",
    ),
    DeathKind.TRIPLE_FAULT: _reset,
    DeathKind.RESET: _reset,
    DeathKind.HOST_RESET: _because(
        CauseKind.RESET, "The host reset the VM while its kernel ran."
    ),
    DeathKind.SHUTDOWN: _because(
        CauseKind.VM_ENDED, "The VM ended, and the kernel's log does not say why."
    ),
    DeathKind.QEMU_ENDED: _because(
        CauseKind.VM_ENDED,
        "QEMU ended while the kernel ran: its log shows no panic.",
    ),
    DeathKind.INTERNAL_ERROR: _because(
        CauseKind.VM_ENDED,
        "QEMU stopped the VM with an internal error: KVM could not run the guest on.",
    ),
    DeathKind.VANISHED: _because(
        CauseKind.VM_ENDED,
        "The kernel vanished from memory without a reset: something overwrote it.",
    ),
}
