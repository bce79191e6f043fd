# SPDX-License-Identifier: GPL-2.0-or-later
"""What the supervisor asks of a worker while it watches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CaptureCommand", "Command", "RefreshCommand", "make_command"]


@dataclass(frozen=True, slots=True)
class RefreshCommand:
    """Look at the kernel now."""

    request: int
    """Number of the request, for the event that answers it."""


@dataclass(frozen=True, slots=True)
class CaptureCommand:
    """Look at the kernel now, and write a core image of it."""

    request: int
    path: Path


Command = RefreshCommand | CaptureCommand


def make_command(body: Mapping[str, object], number: int) -> Command | None:
    """Return the command for a request, or None if it asks for something else."""
    path = body.get("path")
    match body.get("do"):
        case "refresh":
            return RefreshCommand(number)
        case "capture" if isinstance(path, str) and path.startswith("/"):
            return CaptureCommand(number, Path(path))
    return None
