# SPDX-License-Identifier: GPL-2.0-or-later
"""The cause of death where only the watcher saw it, and the kernel looks alive."""

from dataclasses import replace

import pytest

from kmemdump.diagnosis.cause import find_cause
from kmemdump.diagnosis.death_kind import DeathKind, parse_death
from kmemdump.diagnosis.observations import Observations
from kmemdump.diagnosis.records import CauseKind, Cpu, Frame, Task
from kmemdump.kernel.printk import LogRecord

LOG = [LogRecord(0, 5 * 10**9, 6, 0, 1, False, "GUEST-READY")]
IDLE = Cpu(1, True, True, False, Task(0, "swapper/1"), 1, True, -0.2)
FAULT = Cpu(
    0,
    online=True,
    idle=False,
    interrupted=False,
    task=Task(116, "sh"),
    interrupts=True,
    timer_overdue=-0.2,
    frames=(Frame(0x2000, "lab_triple", 0xD, "kmemdump_lab"),),
)
OOPS = LogRecord(
    1, 10**9, 6, 0, 1, False, "BUG: kernel NULL pointer dereference, address: 0"
)


def cause_of(death, *cpus, log=LOG, reason=""):
    return find_cause(
        Observations(
            log, cpus or (FAULT, IDLE), 20.0, death=death, capture_reason=reason
        )
    )


@pytest.mark.parametrize(
    ("death", "kind", "words"),
    [
        (DeathKind.PANIC, CauseKind.PANIC, "The guest said that it panicked"),
        (DeathKind.WATCHDOG, CauseKind.WATCHDOG, "The VM's watchdog expired"),
        (DeathKind.TRIPLE_FAULT, CauseKind.TRIPLE_FAULT, "A triple fault reset the VM"),
        (DeathKind.RESET, CauseKind.RESET, "The guest reset the VM, and its log"),
        (DeathKind.HOST_RESET, CauseKind.RESET, "The host reset the VM"),
        (DeathKind.SHUTDOWN, CauseKind.VM_ENDED, "The VM ended, and the kernel's log"),
        (DeathKind.QEMU_ENDED, CauseKind.VM_ENDED, "QEMU ended while the kernel ran"),
        (DeathKind.INTERNAL_ERROR, CauseKind.VM_ENDED, "QEMU stopped the VM with an"),
        (DeathKind.VANISHED, CauseKind.VM_ENDED, "The kernel vanished from memory"),
    ],
)
def test_first_line(death, kind, words):
    cause = cause_of(death, reason="why")
    assert cause.sentence.startswith(words)
    assert (cause.kind, cause.fatal, cause.advice) == (kind, True, None)
    assert cause.evidence[0] == "kmemdump watch wrote the core image: why"
    # What the kernel survived before is no cause of it.
    after_oops = cause_of(death, log=[*LOG, OOPS])
    assert after_oops.sentence == cause.sentence
    assert any("NULL pointer" in line for line in after_oops.evidence)


@pytest.mark.parametrize("death", [DeathKind.REQUESTED, DeathKind.OOPS, None])
def test_nothing_is_added(death):
    assert cause_of(death).kind == CauseKind.ALIVE


@pytest.mark.parametrize("death", list(DeathKind))
def test_the_log_knows_better(death):
    panic = LogRecord(1, 10**9, 0, 0, 1, False, "Kernel panic - not syncing: x")
    assert cause_of(death, log=[*LOG, panic]).kind == CauseKind.PANIC
    softdog = replace(panic, text="softdog: Initiating system reboot")
    assert "softdog" in cause_of(death, log=[*LOG, softdog]).sentence


def test_triple_fault_names_its_cpu():
    cause = cause_of(DeathKind.TRIPLE_FAULT)
    assert cause.cpu == 0
    assert cause.sentence == (
        "A triple fault reset the VM: CPU 0 could handle neither an exception nor the "
        "faults that followed in lab_triple+0xd [kmemdump_lab], called by task sh (pid "
        "116)."
    )
    # Of two that ran, the one with interrupts off; else nobody knows which.
    other = replace(FAULT, number=2, interrupts=False)
    assert cause_of(DeathKind.TRIPLE_FAULT, FAULT, other).cpu == 2
    cause = cause_of(DeathKind.TRIPLE_FAULT, FAULT, replace(FAULT, number=2))
    assert cause.cpu is None
    assert cause.sentence.endswith("as by a triple fault.")
    assert cause_of(DeathKind.TRIPLE_FAULT, IDLE).cpu is None
    # One that waits for a lock, as it may with interrupts off, is not the one.
    waits = (Frame(0, "native_queued_spin_lock_slowpath", 0x84), *other.frames)
    waiting = replace(other, frames=waits)
    assert cause_of(DeathKind.TRIPLE_FAULT, FAULT, waiting).cpu == 0
    assert cause_of(DeathKind.TRIPLE_FAULT, waiting, IDLE).cpu is None


@pytest.mark.parametrize("death", [DeathKind.RESET, DeathKind.TRIPLE_FAULT])
def test_emergency_restart_is_on_the_stack(death):
    """Kernels before v6.7 do not show it in system_state."""
    names = ("acpi_reset", "native_machine_emergency_restart", "emergency_restart")
    frames = [Frame(i, name, 1) for i, name in enumerate((*names, "softdog_fire"))]
    cause = cause_of(death, replace(FAULT, frames=tuple(frames)), IDLE)
    assert (cause.kind, cause.cpu) == (CauseKind.RESET, 0)
    assert cause.sentence == (
        "The kernel restarted the machine at once (emergency restart) in "
        "softdog_fire+0x1, called by task sh (pid 116)."
    )


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (
            "frozen: CPU 0 stood halted with interrupts off for 10 s",
            "CPU 0 hangs in lab_triple+0xd [kmemdump_lab], called by task sh (pid "
            "116): stood halted with interrupts off for 10 s.",
        ),
        (
            "frozen: the kernel's clock stands still for 10 s",
            "The kernel hangs: the kernel's clock stands still for 10 s.",
        ),
    ],
)
def test_hangs(reason, words):
    cause = cause_of(DeathKind.HANG, reason=reason)
    assert (cause.kind, cause.sentence) == (CauseKind.HANG, words)
    # It may hang on its way to a restart.
    told = LogRecord(1, 10**9, 0, 0, 1, False, "reboot: Restarting system")
    assert cause_of(DeathKind.HANG, log=[*LOG, told], reason=reason).sentence == words


def test_a_watchdog_ends_a_hang():
    softdog = LogRecord(1, 10**9, 0, 0, 1, False, "softdog: Initiating system reboot")
    hangs = replace(FAULT, timer_overdue=15.0, interrupts=False)
    cause = cause_of(DeathKind.RESET, hangs, IDLE, log=[*LOG, softdog])
    assert (cause.kind, cause.cpu) == (CauseKind.HANG, 0)
    assert cause.sentence.startswith("CPU 0 hangs in lab_triple")
    assert cause.sentence.endswith("(softdog) reset the machine: nobody fed it.")
    assert softdog in cause.log


def test_a_reset_is_no_hang():
    """A CPU that resets its machine has interrupts off; clocks may differ."""
    frames = (Frame(1, "psci_sys_reset", 1), Frame(2, "lab_emergency", 1))
    resets = replace(FAULT, interrupts=False, frames=frames)
    seen = Observations(LOG, (resets,), 20.0, clock_lag=50.0)
    assert find_cause(seen).kind == CauseKind.HANG  # Without a watcher.
    for death, kind in (
        (DeathKind.RESET, CauseKind.RESET),
        (DeathKind.QEMU_ENDED, CauseKind.VM_ENDED),
        (DeathKind.WATCHDOG, CauseKind.HANG),
    ):
        assert find_cause(replace(seen, death=death)).kind == kind


def test_words_of_core_images():
    assert parse_death("qemu-ended") is DeathKind.QEMU_ENDED
    assert parse_death("of a newer version") is None
    assert parse_death("") is None
