# SPDX-License-Identifier: GPL-2.0-or-later
"""The points of a check, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kmemdump.text import shell_command

__all__ = [
    "Check",
    "Point",
    "Rehearsal",
    "State",
    "capture_now",
    "missing",
    "ok",
    "warning",
]


class State(StrEnum):
    """The state of a point."""

    OK = "ok"
    WARNING = "warning"
    """Some deaths, or some circumstances, would leave less."""
    MISSING = "missing"
    """A death now would leave less than was asked for."""


@dataclass(frozen=True, slots=True)
class Point:
    """Something that a core image depends on."""

    name: str
    """One or two words."""
    state: State
    text: str
    """What was found, in one line."""
    advice: str = ""
    """What to do about it, in one line; empty if there is nothing to do."""


def ok(name: str, text: str) -> Point:
    """Return a point at which all is well."""
    return Point(name, State.OK, text)


def warning(name: str, text: str, advice: str = "") -> Point:
    """Return a point that is worth a change."""
    return Point(name, State.WARNING, text, advice)


def missing(name: str, text: str, advice: str = "") -> Point:
    """Return a point that costs a part of the next core image."""
    return Point(name, State.MISSING, text, advice)


def capture_now(target: str) -> str:
    """Return the advice about a target that is dead already."""
    command = shell_command("kmemdump", "capture", target, "-o", "CORE")
    return f"write its core image now: {command}"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The core image that was made, inspected, and removed."""

    size: int
    """In bytes."""
    named: float
    """Seconds until a file of that name existed."""
    finished: float
    """Seconds until it was complete."""


@dataclass(frozen=True, slots=True)
class Check:
    """The result of checking a target."""

    target: str
    """As a user would name it."""
    points: tuple[Point, ...] = ()
    release: str | None = None
    """Release of its kernel."""
    core: Rehearsal | None = None
    error: str | None = None
    """Why the target cannot be read; there may be points that were found before."""

    @property
    def state(self) -> State:
        """The worst state of all points."""
        if self.error is not None:
            return State.MISSING
        states = {point.state for point in self.points}
        for state in (State.MISSING, State.WARNING):
            if state in states:
                return state
        return State.OK
