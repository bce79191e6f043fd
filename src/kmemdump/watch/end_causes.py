# SPDX-License-Identifier: GPL-2.0-or-later
"""Why watching a kernel ends: by a death, which is worth a core image, or otherwise."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from enum import Enum

from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.watch.events import EventName
from kmemdump.watch.liveness import KernelState
from kmemdump.watch.qmp_events import VmEvent, VmEventKind
from kmemdump.watch.vm_control import VmControl

__all__ = [
    "DumpCause",
    "VmAfterDeath",
    "WatchEnd",
    "judge_first_look",
    "judge_qemu_end",
    "judge_reset",
    "judge_shutdown",
    "judge_stop",
    "judge_watchdog",
]

_RESET_PATIENCE = 1.0
"""Seconds in which QEMU resets a VM whose watchdog expired."""


class VmAfterDeath(Enum):
    """What a VM does by itself after its kernel died."""

    STAYS = "it stays as it is"
    MAY_RUN = "it may go on running"
    RESET_BY_GUEST = "the guest reset it, and it boots again"
    RESET_BY_HOST = "the host reset it, and it boots again"
    WAITS_FOR_RESET = "the host wanted a reset, and QEMU paused it instead"
    ENDED = "QEMU has ended"

    @property
    def boots(self) -> bool:
        return self in (VmAfterDeath.RESET_BY_GUEST, VmAfterDeath.RESET_BY_HOST)


@dataclass(frozen=True, slots=True)
class DumpCause:
    """A reason to write a core image."""

    kind: DeathKind
    cause: str
    """For the core image, and for a person."""
    noticed: float
    """When it occurred: seconds of the monotonic clock."""
    vm: VmAfterDeath = VmAfterDeath.STAYS
    cpus: tuple[int, ...] = ()
    """The CPUs that hang, if it is that."""
    found: bool = False
    """Whether the kernel was dead before the watch began: nothing acts on that."""

    @property
    def survived(self) -> bool:
        """Whether the kernel lives on."""
        return self.kind in (DeathKind.OOPS, DeathKind.REQUESTED)

    @property
    def text(self) -> str:
        """The cause for the core image, and for a person."""
        return f"{'dead before the watch began: ' * self.found}{self.cause}"


@dataclass(frozen=True, slots=True)
class WatchEnd:
    """Why there is no kernel to watch any more."""

    text: str = ""
    """A message to report, if it is not empty."""
    boots_again: bool = False
    """Whether the VM boots another kernel."""
    event: EventName = EventName.NOTE
    """What the message is."""


def _orderly(text: str, boots_again: bool = False) -> WatchEnd:
    return WatchEnd(text, boots_again, EventName.ORDERLY)


def judge_watchdog(control: VmControl, event: VmEvent, now: float) -> DumpCause:
    """Return what it means that the VM's watchdog expired; pauses the VM."""
    control.stop()  # While most of the memory is still there.
    vm = VmAfterDeath.STAYS
    if event.action in ("none", "debug", "shutdown"):
        vm = VmAfterDeath.MAY_RUN
    elif event.action == "reset":
        # QEMU may have been told to pause it instead.
        after = control.next_event(_RESET_PATIENCE)
        if after is not None and after.kind is VmEventKind.RESET:
            vm = VmAfterDeath.RESET_BY_GUEST
    return DumpCause(DeathKind.WATCHDOG, event.text, now, vm)


def judge_reset(
    kernel: KernelState, event: VmEvent, now: float, *, by_fault: bool
) -> DumpCause | WatchEnd:
    """
    Return what a reset means.

    What is in doubt is a death: a core image too many costs 8 MB, one too few all.

    :param by_fault: Whether the processor resets itself after a triple fault.
    """
    if event.snapshot:
        text = "goes on from a snapshot: no core image"
        return _orderly(text, boots_again=True)
    vm = VmAfterDeath.RESET_BY_GUEST if event.guest else VmAfterDeath.RESET_BY_HOST
    if kernel.panicked:
        return DumpCause(DeathKind.PANIC, "panic, then a reset", now, vm)
    if kernel.end is not None:
        return _orderly("rebooted in an orderly way: no core image", boots_again=True)
    return _sudden_reset(kernel, event, now, vm, by_fault)


def _sudden_reset(
    kernel: KernelState, event: VmEvent, now: float, vm: VmAfterDeath, by_fault: bool
) -> DumpCause:
    """Return the cause of a reset that the kernel did not announce."""
    if not event.guest:
        cause = f"reset by the host without a shutdown ({event.text})"
        return DumpCause(DeathKind.HOST_RESET, cause, now, vm)
    if by_fault and not kernel.leaving:
        cause = f"reset while the kernel ran, as by a triple fault ({event.text})"
        return DumpCause(DeathKind.TRIPLE_FAULT, cause, now, vm)
    cause = f"reset by the guest without a shutdown ({event.text})"
    return DumpCause(DeathKind.RESET, cause, now, vm)


def judge_shutdown(
    control: VmControl,
    kernel: KernelState,
    event: VmEvent,
    now: float,
    *,
    by_fault: bool,
    in_memory: bool,
) -> DumpCause | WatchEnd:
    """
    Return what a shutdown means.

    :param by_fault: As for :func:`judge_reset`.
    :param in_memory: Whether the kernel is still in memory, so that its log tells.
    """
    if kernel.panicked:
        return DumpCause(DeathKind.PANIC, "panic, then the end of the VM", now)
    paused = control.status() == "shutdown"
    if kernel.end is not None:
        if not event.reboot:
            return _orderly("powered off in an orderly way: no core image")
        text = "rebooted in an orderly way: no core image"
        if paused:  # QEMU was told to pause instead of resetting.
            return _orderly(f"{text}; resetting the VM for it", boots_again=True)
        return _orderly(text)
    if event.reboot:
        vm = VmAfterDeath.STAYS
        if not event.guest and paused:
            vm = VmAfterDeath.WAITS_FOR_RESET
        return _sudden_reset(kernel, event, now, vm, by_fault)
    if not event.guest:
        return _orderly(f"ended by its host ({event.text}): no core image")
    if not in_memory:
        # Unlike a reset, only a kernel that means it powers its machine off.
        return _orderly("powered off, and its memory is gone: no core image")
    cause = f"ended without a shutdown ({event.text})"
    return DumpCause(DeathKind.SHUTDOWN, cause, now)


def judge_stop(status: str | None, now: float) -> DumpCause | None:
    """
    Return what it means that the VM was stopped; None if it may go on.

    :param status: QEMU's run state.
    """
    if status != "internal-error":  # kvm_cpu_exec() in accel/kvm/kvm-all.c of QEMU.
        return None
    return DumpCause(DeathKind.INTERNAL_ERROR, "QEMU could not run it on", now)


def judge_qemu_end(kernel: KernelState) -> DumpCause | WatchEnd:
    """Return what the end of QEMU means."""
    if kernel.end is not None:
        return _orderly("QEMU ended after an orderly shutdown: no core image")
    kind, cause = DeathKind.QEMU_ENDED, "QEMU ended unexpectedly"
    if kernel.panicked:
        kind, cause = DeathKind.PANIC, "panic, then QEMU ended"
    return DumpCause(kind, cause, time.monotonic(), VmAfterDeath.ENDED)


def judge_first_look(
    kernel: KernelState, status: str | None, *, lives: bool
) -> DumpCause | WatchEnd | None:
    """
    Return what a VM means that is dead already; None if it may live.

    :param status: QEMU's run state.
    :param lives: Whether the kernel booted while the VM was watched.
    """
    now = time.monotonic()
    if kernel.panicked:
        cause = "panic before it was marked" if lives else "panic"
        return DumpCause(DeathKind.PANIC, cause, now, found=not lives)
    if status == "watchdog":
        cause = "the watchdog expired"
        return DumpCause(DeathKind.WATCHDOG, cause, now, found=not lives)
    if (stop := judge_stop(status, now)) is not None:
        return replace(stop, found=not lives)
    if status != "shutdown":
        return None
    if kernel.end is not None:
        return _orderly("has shut down in an orderly way already: no core image")
    cause = "ended without a shutdown"
    return DumpCause(DeathKind.SHUTDOWN, cause, now, found=not lives)
