# SPDX-License-Identifier: GPL-2.0-or-later
"""How to watch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

__all__ = ["Settings", "Then"]


class Then(StrEnum):
    """What to do with a VM whose kernel died."""

    PAUSE = "pause"
    RESET = "reset"
    QUIT = "quit"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to watch."""

    folder: Path
    """Where core images go."""
    interval: float = 30.0
    """Seconds between two refreshes."""
    hang_after: float = 10.0
    """Seconds for which a kernel must be frozen; 0: never mind."""
    then: Then = Then.PAUSE
