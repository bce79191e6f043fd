# SPDX-License-Identifier: GPL-2.0-or-later
"""How to watch VMs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from kmemdump.coreimage.retention import Limits
from kmemdump.sealing import Seal

__all__ = ["INTERVAL", "Settings", "VmAction"]

INTERVAL = 5.0
"""Seconds between two refreshes of the marks, if they are cheap."""


class VmAction(StrEnum):
    """What to do with a VM whose kernel died."""

    PAUSE = "pause"
    RESET = "reset"
    QUIT = "quit"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to watch VMs."""

    folder: Path
    """Where core images are written."""
    interval: float | None = None
    """
    Seconds between two refreshes of the marks, whatever they cost; ``None`` for
    :data:`INTERVAL`, or more if they would take more than 1 % of one CPU.
    """
    hang_after: float = 10.0
    """Seconds for which a kernel must be frozen; 0 turns the hang detector off."""
    action: VmAction = VmAction.PAUSE
    until_dead: bool = False
    """Whether the watch ends when each VM has died or ended."""
    control: Path | None = None
    """Where the control socket is made."""
    builds: Path | None = None
    """Folder of what VMs of one kernel build share."""
    memory: int = 2 << 30
    """Bytes that the process of each VM may allocate."""
    cpu: float = 900.0
    """CPU seconds of which each question has a part, whenever it is asked."""
    limits: Limits = field(default_factory=Limits)
    """How much room core images may take."""
    seal: Seal | None = None
    """Who can read the core images; ``None``: all who can read the files."""
