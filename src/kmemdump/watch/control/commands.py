# SPDX-License-Identifier: GPL-2.0-or-later
"""What the supervisor asks of a worker while it watches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

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
    rehearsal: bool = False
    """Whether it is not kept, and so not counted."""
    recipients: tuple[str, ...] = ()
    """
    Who can open it; if there are none, those of the watch's settings. A rehearsal adds
    them to those of the settings, if these seal.
    """


Command = RefreshCommand | CaptureCommand


def make_command(body: Mapping[str, object], number: int) -> Command | None:
    """Return the command for a request, or None if it asks for something else."""
    path, seal = body.get("path"), body.get("seal", [])
    match body.get("do"):
        case "refresh":
            return RefreshCommand(number)
        case "capture" | "rehearse" as do if _is_absolute(path) and _are_texts(seal):
            recipients = tuple(map(str, seal))
            return CaptureCommand(number, Path(str(path)), do == "rehearse", recipients)
    return None


def _is_absolute(path: object) -> bool:
    return isinstance(path, str) and path.startswith("/")


def _are_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
