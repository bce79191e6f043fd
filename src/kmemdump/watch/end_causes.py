# SPDX-License-Identifier: GPL-2.0-or-later
"""How watching a kernel ends: with a death, which is worth a core image, or not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum

from kmemdump.watch.qmp_events import Notice
from kmemdump.watch.vm_control import Host
from kmemdump.watch.vm_state import Life

__all__ = ["Death", "End", "Fate", "shut_down", "vanished", "was_reset"]


class Fate(Enum):
    """What becomes of a VM by itself after its kernel died."""

    STANDS = "it stays as it is"
    LIVES = "it may go on living"
    BOOTS = "it was reset by the guest, and boots again"
    RESET = "it was reset by its host, and boots again"
    GONE = "QEMU has ended"


@dataclass(frozen=True, slots=True)
class Death:
    """Why to write a core image."""

    cause: str
    noticed: float
    fate: Fate = Fate.STANDS
    oops: bool = False
    """Whether it is just an oops that the kernel survived."""


@dataclass(frozen=True, slots=True)
class End:
    """Why there is nothing to write."""

    text: str
    again: bool = False
    """Whether the VM boots again."""


def was_reset(life: Life, notice: Notice, now: float) -> Death | End:
    """Say what a reset meant."""
    signs = life.signs()
    fate = Fate.BOOTS if notice.guest else Fate.RESET
    if signs.panicked:
        return Death("panic, then a reset", now, fate)
    if signs.leaving:
        return End("rebooted in an orderly way: no core image", again=True)
    who = "guest" if notice.guest else "host"
    return Death(f"reset by the {who} without a shutdown ({notice.text})", now, fate)


def shut_down(host: Host, life: Life, notice: Notice, now: float) -> Death | End:
    """Say what a shutdown meant."""
    signs = life.signs()
    if signs.panicked:
        return Death("panic, then the end of the VM", now)
    if signs.leaving:
        if not notice.reboot:
            return End("powered off in an orderly way: no core image")
        text = "rebooted in an orderly way: no core image"
        if host.status() == "shutdown":
            # QEMU was told to pause where it would reset.
            return End(f"{text}; resetting the VM for it", again=True)
        return End(text)
    if not notice.guest:
        return End(f"ended by its host ({notice.text}): no core image")
    return Death(f"ended without a shutdown ({notice.text})", now)


def vanished(life: Life) -> Death | End:
    """Say what it meant that QEMU ended."""
    signs = life.signs()
    if signs.leaving:
        return End("QEMU ended after an orderly shutdown: no core image")
    cause = "panic, then QEMU ended" if signs.panicked else "QEMU ended unexpectedly"
    return Death(cause, time.monotonic(), Fate.GONE)
