# SPDX-License-Identifier: GPL-2.0-or-later
"""
What panic() says, and for which event before it panicked.

Each rule is a message of a call of panic() in the kernel's source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kmemdump.diagnosis.event_kind import EventKind as K
from kmemdump.diagnosis.event_pattern import Place, Weight

__all__ = ["PANIC", "PANICS", "PanicRule", "find_panic_rule"]

PANIC = re.compile(r"Kernel panic - not syncing: ?(.*)")


@dataclass(frozen=True, slots=True)
class PanicRule:
    """A rule for a message of panic()."""

    kind: K
    pattern: re.Pattern[str]
    words: str
    """The sentence if the panic itself is the event."""
    place: Place = Place.NONE
    for_weights: frozenset[Weight] = frozenset()
    """Weights of events before it for which the kernel panics so."""
    for_kinds: frozenset[K] = frozenset()
    setting: str = ""
    """The setting by which the kernel panicked for that event."""
    names_task: bool = False
    """Whether the task that ran when it panicked has to do with it."""


def _rule(
    kind: K,
    pattern: str,
    words: str,
    place: Place = Place.NONE,
    *,
    weights: tuple[Weight, ...] = (),
    kinds: tuple[K, ...] = (),
    setting: str = "",
    names_task: bool = False,
) -> PanicRule:
    return PanicRule(
        kind,
        re.compile(pattern),
        words,
        place,
        frozenset(weights),
        frozenset(kinds),
        setting,
        names_task,
    )


_OOPS = (Weight.OOPS,)
_CHECKS = (Weight.CORRUPTION, Weight.SPLAT)
PANICS = (
    # arch/*/kernel: die(), oops_end(); aarch64 puts the name of the fault before it.
    _rule(
        K.OOPS,
        r"^(?:.{1,80}: )?Fatal exception",
        "The kernel panicked: {message}",
        Place.STACK,
        weights=_OOPS,
        kinds=(K.SERROR,),
        setting="panic_on_oops is set (oops=panic)",
    ),
    _rule(
        K.OOPS,
        r"^(?:Oops|panic_on_oops)",
        "The kernel panicked: {message}",
        weights=_OOPS,
    ),
    _rule(
        K.SYSRQ,
        r"sysrq triggered crash",
        "{who} made the kernel crash on purpose, through sysrq{where}",
    ),
    # arch/x86/kernel/nmi.c, drivers/watchdog/hpwdt.c
    _rule(
        K.NMI,
        r"NMI: Not continuing|NMI IOCK error|An NMI occurred|NMI: Unhandled|"
        r"nmi_panic|Fatal NMI",
        "{cpu} got a non-maskable interrupt (NMI) {reason}",
        Place.COUNTER,
    ),
    # kernel/exit.c
    _rule(
        K.INIT_DEATH,
        r"Attempted to kill init!(?: ?exitcode=(?P<code>0x[0-9a-f]{1,8}))?",
        "Process 1 (init) ended{how}, and nothing goes on without it",
        weights=_OOPS,
    ),
    _rule(
        K.OOPS,
        r"Attempted to kill the idle task|Aiee, killing interrupt handler",
        "The kernel panicked: {message}",
        weights=_OOPS,
    ),
    # kernel/watchdog.c, kernel/hung_task.c, kernel/rcu/tree_stall.h
    _rule(
        K.SOFT_LOCKUP,
        r"softlockup: hung tasks",
        "A CPU was stuck",
        Place.STUCK,
        kinds=(K.SOFT_LOCKUP,),
        setting="softlockup_panic is set",
    ),
    _rule(
        K.HARD_LOCKUP,
        r"[Hh]ard LOCKUP",
        "A CPU was stuck with interrupts off",
        Place.STUCK,
        kinds=(K.HARD_LOCKUP,),
        setting="hardlockup_panic is set (nmi_watchdog=panic)",
    ),
    _rule(
        K.HUNG_TASK,
        r"hung_task: blocked tasks",
        "A task was blocked for too long",
        Place.STUCK,
        kinds=(K.HUNG_TASK,),
        setting="hung_task_panic is set",
    ),
    _rule(
        K.RCU_STALL,
        r"RCU Stall",
        "A CPU or task held up RCU for too long (a stall)",
        Place.STUCK,
        kinds=(K.RCU_STALL,),
        setting="panic_on_rcu_stall is set",
    ),
    # mm/oom_kill.c
    _rule(
        K.OOM,
        r"[Oo]ut of memory|deadlocked on memory",
        "Memory ran out{in_task}{oom}",
    ),
    # init/do_mounts.c, init/main.c
    _rule(
        K.NO_ROOT,
        r"VFS: Unable to mount root fs on (?P<what>.{1,100}?)\s*$|"
        r"(?P<what2>No root device|.{0,40}mount root)",
        "The kernel could not mount its root file system (on {what})",
    ),
    _rule(
        K.NO_INIT,
        r"No working init found|Requested init|No init found",
        "The kernel found no program that it could start as init",
    ),
    # kernel/panic.c
    _rule(
        K.STACK_CORRUPTION,
        r"stack-protector: Kernel stack is corrupted in: (?:\[<[^>]*>\] "
        r")?(?P<place>[^\s+]{1,200})?",
        "Something wrote over the kernel's stack",
        Place.HEADER,
        weights=(),
    ),
    _rule(
        K.STACK_CORRUPTION,
        r"corrupted stack end detected inside scheduler",
        "Something wrote over the end of the kernel's stack (corrupted stack end "
        "detected inside scheduler)",
        Place.STACK,
        weights=(Weight.CORRUPTION,),
    ),
    _rule(
        K.STACK_OVERFLOW,
        r"[Kk]ernel stack overflow|IRQ stack overflow",
        "The kernel's stack overflowed",
        Place.COUNTER,
        kinds=(K.STACK_OVERFLOW,),
    ),
    _rule(
        K.WARNING,
        r"panic_on_warn set|kernel: panic_on_warn",
        "The kernel warned",
        Place.COUNTER,
        weights=_CHECKS,
        setting="panic_on_warn is set",
    ),
    _rule(
        K.KASAN,
        r"kasan\.fault=panic",
        "KASAN found a bad memory access",
        kinds=(K.KASAN,),
        setting="kasan.fault=panic is set",
    ),
    _rule(
        K.KMSAN,
        r"panic_on_kmsan set|kmsan\.panic",
        "KMSAN found a use of uninitialised memory",
        kinds=(K.KMSAN,),
        setting="kmsan.panic is set",
    ),
    _rule(
        K.ATOMIC_SLEEP,
        r"scheduling while atomic",
        "The kernel wanted to sleep where it must not (scheduling while atomic)",
        Place.STACK,
        kinds=(K.ATOMIC_SLEEP,),
    ),
    _rule(
        K.BTI,
        r"(?:bad mode|Unhandled exception).{0,40}BTI",
        "The kernel jumped to a place that is no target of an indirect branch (BTI)",
        Place.COUNTER,
        kinds=(K.BTI,),
    ),
    _rule(
        K.OOPS,
        r"^(?P<what>bad mode|Unhandled exception.{0,60})$",
        "The kernel hit an exception that it cannot handle ({what})",
        Place.COUNTER,
        weights=_OOPS,
    ),
    # arch/arm64/kernel/traps.c
    _rule(
        K.SERROR,
        r"Asynchronous SError Interrupt|SError",
        "The hardware reported an error of an earlier access (SError)",
        Place.COUNTER,
        kinds=(K.SERROR,),
        names_task=True,
    ),
    # arch/x86/kernel/cpu/mce, drivers/acpi/apei/ghes.c, drivers/edac
    _rule(
        K.MACHINE_CHECK,
        r"[Mm]achine check|Timeout: Not all CPUs entered broadcast|MCE: ",
        "The processor reported a fatal hardware error{hint}",
        kinds=(K.MACHINE_CHECK,),
    ),
    _rule(
        K.FIRMWARE_ERROR,
        r"Fatal hardware error|GHES: Fatal",
        "Firmware reported a fatal error of the hardware",
        kinds=(K.FIRMWARE_ERROR,),
    ),
    _rule(
        K.MEMORY_ERROR,
        r"EDAC (?P<what>.{1,200})|Uncorrected Error|memory failure",
        "A memory module had an error that cannot be corrected ({message})",
    ),
    _rule(
        K.PCIE_ERROR,
        r"AER: |DPC: |PCIe? .{0,40}error|SERR",
        "A PCIe device reported a fatal error ({message})",
    ),
    # fs/*: errors=panic
    _rule(
        K.FILE_SYSTEM,
        r"(?P<what>(?:EXT[234]|XFS|btrfs|BTRFS|JBD2|UBIFS|F2FS|GFS2|OCFS2)\S{0,10}"
        r"[ :(].{1,200})",
        "A file system found an error of its own, and is set to panic then: {what}",
        names_task=True,
    ),
    # drivers/watchdog
    _rule(
        K.WATCHDOG,
        r"[Ww]atchdog (?:pretimeout|[Tt]imer expired|bite|bark|timeout)|softdog|"
        r"pretimeout event",
        "A watchdog expired: nothing fed it in time ({message})",
    ),
    # arch/x86/kernel/cpu/sgx, arch/x86/coco/tdx
    _rule(
        K.ENCLAVE,
        r"(?P<what>(?:TDX|SGX|TD misconfig|#VE|SEV).{1,200})",
        "The processor or hypervisor broke a rule of confidential computing: {message}",
        names_task=True,
    ),
    # arch/x86/xen, arch/x86/hyperv, arch/powerpc
    _rule(
        K.HYPERVISOR,
        r"(?P<what>(?:Xen|Hyper-?V|hv_|VMBus|Hypervisor|hypervisor).{1,200})",
        "The hypervisor, or the kernel's part for it, failed: {message}",
        names_task=True,
    ),
    _rule(K.PANIC, r"", "The kernel panicked{in_task}: {message}", Place.STACK),
)


def find_panic_rule(message: str) -> tuple[PanicRule, re.Match[str]]:
    """Return the rule for a message of panic(); the last one is for any."""
    found = ((rule, rule.pattern.search(message)) for rule in PANICS)
    return next((rule, match) for rule, match in found if match is not None)
