# SPDX-License-Identifier: GPL-2.0-or-later
"""Why watching a kernel ends: by a death, which is worth a core image, or not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum

from kmemdump.watch.qmp_events import VmEvent
from kmemdump.watch.vm_control import VmControl
from kmemdump.watch.vm_state import VmState

__all__ = [
    "DumpCause",
    "VmAfterDeath",
    "WatchEnd",
    "judge_qemu_end",
    "judge_reset",
    "judge_shutdown",
]


class VmAfterDeath(Enum):
    """What becomes of a VM by itself after its kernel died."""

    STAYS = "it stays as it is"
    MAY_RUN = "it may go on running"
    RESET_BY_GUEST = "the guest reset it, and it boots again"
    RESET_BY_HOST = "the host reset it, and it boots again"
    ENDED = "QEMU has ended"


@dataclass(frozen=True, slots=True)
class DumpCause:
    """Why to write a core image."""

    cause: str
    """For the core image, and for a person."""
    noticed: float
    """When: seconds of the monotonic clock."""
    vm: VmAfterDeath = VmAfterDeath.STAYS
    oops: bool = False
    """Whether the kernel survived it."""


@dataclass(frozen=True, slots=True)
class WatchEnd:
    """Why there is nothing to write, and no kernel to watch."""

    text: str
    boots_again: bool = False
    """Whether the VM boots another kernel."""


def judge_reset(state: VmState, event: VmEvent, now: float) -> DumpCause | WatchEnd:
    """Return what a reset means."""
    kernel = state.read_kernel()
    vm = VmAfterDeath.RESET_BY_GUEST if event.guest else VmAfterDeath.RESET_BY_HOST
    if kernel.panicked:
        return DumpCause("panic, then a reset", now, vm)
    if kernel.leaving:
        return WatchEnd("rebooted in an orderly way: no core image", boots_again=True)
    who = "guest" if event.guest else "host"
    return DumpCause(f"reset by the {who} without a shutdown ({event.text})", now, vm)


def judge_shutdown(
    control: VmControl, state: VmState, event: VmEvent, now: float
) -> DumpCause | WatchEnd:
    """Return what a shutdown means."""
    kernel = state.read_kernel()
    if kernel.panicked:
        return DumpCause("panic, then the end of the VM", now)
    if kernel.leaving:
        if not event.reboot:
            return WatchEnd("powered off in an orderly way: no core image")
        text = "rebooted in an orderly way: no core image"
        if control.status() == "shutdown":
            # QEMU was told to pause where it would reset.
            return WatchEnd(f"{text}; resetting the VM for it", boots_again=True)
        return WatchEnd(text)
    if not event.guest:
        return WatchEnd(f"ended by its host ({event.text}): no core image")
    return DumpCause(f"ended without a shutdown ({event.text})", now)


def judge_qemu_end(state: VmState) -> DumpCause | WatchEnd:
    """Return what it means that QEMU has ended."""
    kernel = state.read_kernel()
    if kernel.leaving:
        return WatchEnd("QEMU ended after an orderly shutdown: no core image")
    cause = "panic, then QEMU ended" if kernel.panicked else "QEMU ended unexpectedly"
    return DumpCause(cause, time.monotonic(), VmAfterDeath.ENDED)
