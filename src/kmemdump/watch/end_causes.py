# SPDX-License-Identifier: GPL-2.0-or-later
"""Why watching a kernel ends: by a death, which is worth a core image, or otherwise."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum

from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.watch.events import EventName
from kmemdump.watch.liveness import KernelState
from kmemdump.watch.qmp_events import VmEvent
from kmemdump.watch.vm_control import VmControl

__all__ = [
    "DumpCause",
    "VmAfterDeath",
    "WatchEnd",
    "judge_qemu_end",
    "judge_reset",
    "judge_shutdown",
]


class VmAfterDeath(Enum):
    """What a VM does by itself after its kernel died."""

    STAYS = "it stays as it is"
    MAY_RUN = "it may go on running"
    RESET_BY_GUEST = "the guest reset it, and it boots again"
    RESET_BY_HOST = "the host reset it, and it boots again"
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

    @property
    def survived(self) -> bool:
        """Whether the kernel lives on."""
        return self.kind in (DeathKind.OOPS, DeathKind.REQUESTED)


@dataclass(frozen=True, slots=True)
class WatchEnd:
    """Why there is no kernel to watch any more."""

    text: str = ""
    """A message to report, if it is not empty."""
    boots_again: bool = False
    """Whether the VM boots another kernel."""
    event: EventName = EventName.NOTE
    """What the message is."""


def judge_reset(
    kernel: KernelState, event: VmEvent, now: float
) -> DumpCause | WatchEnd:
    """Return what a reset means."""
    vm = VmAfterDeath.RESET_BY_GUEST if event.guest else VmAfterDeath.RESET_BY_HOST
    if kernel.panicked:
        return DumpCause(DeathKind.PANIC, "panic, then a reset", now, vm)
    if kernel.leaving:
        return WatchEnd(
            "rebooted in an orderly way: no core image",
            boots_again=True,
            event=EventName.ORDERLY,
        )
    who = "guest" if event.guest else "host"
    kind = DeathKind.RESET if event.guest else DeathKind.HOST_RESET
    cause = f"reset by the {who} without a shutdown ({event.text})"
    return DumpCause(kind, cause, now, vm)


def judge_shutdown(
    control: VmControl, kernel: KernelState, event: VmEvent, now: float
) -> DumpCause | WatchEnd:
    """Return what a shutdown means."""
    if kernel.panicked:
        return DumpCause(DeathKind.PANIC, "panic, then the end of the VM", now)
    if kernel.leaving:
        if not event.reboot:
            text = "powered off in an orderly way: no core image"
            return WatchEnd(text, event=EventName.ORDERLY)
        text = "rebooted in an orderly way: no core image"
        if control.status() == "shutdown":
            # QEMU was told to pause instead of resetting.
            text = f"{text}; resetting the VM for it"
            return WatchEnd(text, boots_again=True, event=EventName.ORDERLY)
        return WatchEnd(text, event=EventName.ORDERLY)
    if not event.guest:
        text = f"ended by its host ({event.text}): no core image"
        return WatchEnd(text, event=EventName.ORDERLY)
    cause = f"ended without a shutdown ({event.text})"
    return DumpCause(DeathKind.SHUTDOWN, cause, now)


def judge_qemu_end(kernel: KernelState) -> DumpCause | WatchEnd:
    """Return what the end of QEMU means."""
    if kernel.leaving:
        text = "QEMU ended after an orderly shutdown: no core image"
        return WatchEnd(text, event=EventName.ORDERLY)
    kind, cause = DeathKind.QEMU_ENDED, "QEMU ended unexpectedly"
    if kernel.panicked:
        kind, cause = DeathKind.PANIC, "panic, then QEMU ended"
    return DumpCause(kind, cause, time.monotonic(), VmAfterDeath.ENDED)
