# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU's events mean for the kernel of a VM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from kmemdump.text import printable

__all__ = ["VmEvent", "VmEventKind", "interpret_event"]

_MAX_TEXT = 40


class VmEventKind(Enum):
    """What happened."""

    PANIC = "panic"
    """The guest reports that it panicked."""
    WATCHDOG = "watchdog"
    """The guest's watchdog expired."""
    NMI = "nmi"
    """The same, and QEMU sent the guest an NMI, which may make it panic."""
    RESET = "reset"
    """The VM was reset and boots again."""
    SHUTDOWN = "shutdown"
    """The VM ends: QEMU exits, or pauses it."""
    HIBERNATION = "hibernation"
    """The guest has written itself to its disk, and ends."""


@dataclass(frozen=True, slots=True)
class VmEvent:
    """An event that may mean a kernel's death."""

    kind: VmEventKind
    text: str
    """In words for a person."""
    guest: bool = True
    """Whether the guest caused it, not the host."""
    reboot: bool = False
    """Of a shutdown: whether a reset was wanted."""
    action: str = ""
    """Of a watchdog: what QEMU does about it."""
    snapshot: bool = False
    """Of a reset: whether the VM goes on from a snapshot."""


def interpret_event(event: Mapping[str, object]) -> VmEvent | None:
    """
    Return what a QMP event means.

    :return: None if it has nothing to do with a kernel's death.
    """
    name = event.get("event")
    raw = event.get("data")
    data: Mapping[str, object] = raw if isinstance(raw, dict) else {}
    action = _word(data.get("action"))
    if name == "GUEST_PANICKED":
        return VmEvent(VmEventKind.PANIC, "the guest told QEMU that it panicked")
    if name == "GUEST_CRASHLOADED":
        return VmEvent(VmEventKind.PANIC, "the guest told QEMU that it starts kdump")
    if name == "WATCHDOG":
        injected = action == "inject-nmi"
        kind = VmEventKind.NMI if injected else VmEventKind.WATCHDOG
        return VmEvent(kind, f"the watchdog expired (action {action})", action=action)
    if name == "RESET":
        reason, guest = _reason(data), data.get("guest") is True
        snapshot = reason == "snapshot-load"
        return VmEvent(VmEventKind.RESET, reason, guest, snapshot=snapshot)
    if name == "SHUTDOWN":
        reboot = data.get("reason") in ("guest-reset", "host-qmp-system-reset")
        guest = data.get("guest") is True
        return VmEvent(VmEventKind.SHUTDOWN, _reason(data), guest, reboot)
    if name == "SUSPEND_DISK":
        return VmEvent(VmEventKind.HIBERNATION, "the guest hibernated")
    return None


def _reason(data: Mapping[str, object]) -> str:
    return _word(data.get("reason")) or "no reason given"


def _word(value: object) -> str:
    # QEMU's answer is printed on a terminal.
    return printable(value)[:_MAX_TEXT] if isinstance(value, str) else ""
