# SPDX-License-Identifier: GPL-2.0-or-later
"""What a watcher saw of a kernel's death from outside."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["DeathKind", "parse_death"]


class DeathKind(StrEnum):
    """
    What a watcher saw, or why else it wrote a core image.

    The kernel's log and CPUs often tell more: see
    :class:`kmemdump.diagnosis.records.CauseKind`.
    """

    PANIC = "panic"
    OOPS = "oops"
    """The kernel survived it."""
    HANG = "hang"
    WATCHDOG = "watchdog"
    """The VM's watchdog device expired."""
    TRIPLE_FAULT = "triple-fault"
    """The VM reset itself while its kernel was not going down."""
    RESET = "reset"
    """The guest reset the VM, and the kernel logged no restart."""
    HOST_RESET = "host-reset"
    SHUTDOWN = "shutdown"
    """The VM ended, and the kernel logged no end."""
    QEMU_ENDED = "qemu-ended"
    INTERNAL_ERROR = "internal-error"
    """QEMU stopped the VM: KVM, or QEMU itself, could not run it on."""
    VANISHED = "vanished"
    """The kernel is not in memory any more, and no event says why."""
    REQUESTED = "requested"
    """The kernel lives; somebody asked for a core image."""


def parse_death(word: str) -> DeathKind | None:
    """Return the kind that a core image names; None if it is not known."""
    try:
        return DeathKind(word)
    except ValueError:
        return None
