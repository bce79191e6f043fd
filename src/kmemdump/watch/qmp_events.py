# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU's events say about the life of a VM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from kmemdump.text import printable

__all__ = ["Notice", "NoticeKind", "interpret"]

_MAX_TEXT = 40


class NoticeKind(Enum):
    """What happened."""

    PANIC = "panic"
    """The guest says that it panicked."""
    WATCHDOG = "watchdog"
    """The guest did not feed its watchdog."""
    INJECTED = "injected"
    """The same, and QEMU sent the guest an NMI, which may make it panic."""
    RESET = "reset"
    """The VM was reset and boots again."""
    SHUTDOWN = "shutdown"
    """The VM ends: QEMU exits, or pauses it."""


@dataclass(frozen=True, slots=True)
class Notice:
    """An event that matters."""

    kind: NoticeKind
    text: str
    """For a person."""
    guest: bool = True
    """Whether the guest did that, and not the host."""
    reboot: bool = False
    """Of a shutdown: whether the guest wanted a reboot."""


def interpret(event: Mapping[str, object]) -> Notice | None:
    """
    Tell what a QMP event means.

    :return: None if it has nothing to do with the guest's death.
    """
    name = event.get("event")
    raw = event.get("data")
    data: Mapping[str, object] = raw if isinstance(raw, dict) else {}
    action = _word(data.get("action"))
    if name == "GUEST_PANICKED":
        return Notice(NoticeKind.PANIC, "the guest told QEMU that it panicked")
    if name == "GUEST_CRASHLOADED":
        return Notice(NoticeKind.PANIC, "the guest told QEMU that it starts kdump")
    if name == "WATCHDOG":
        injected = action == "inject-nmi"
        kind = NoticeKind.INJECTED if injected else NoticeKind.WATCHDOG
        return Notice(kind, f"the watchdog expired (action {action})")
    if name == "RESET":
        # A loaded snapshot is another kernel just as much.
        return Notice(NoticeKind.RESET, _said(data), data.get("guest") is True)
    if name == "SHUTDOWN":
        reboot = data.get("reason") in ("guest-reset", "host-qmp-system-reset")
        guest = data.get("guest") is True
        return Notice(NoticeKind.SHUTDOWN, _said(data), guest, reboot)
    return None


def _said(data: Mapping[str, object]) -> str:
    return _word(data.get("reason")) or "no reason given"


def _word(value: object) -> str:
    # QEMU's answer ends on somebody's terminal.
    return printable(value)[:_MAX_TEXT] if isinstance(value, str) else ""
