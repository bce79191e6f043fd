# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to a VM that is watched: a line for people, fields for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TypedDict

__all__ = ["Event", "EventFields", "EventName"]

_VERSION = 2
"""Of :meth:`Event.record`."""


class EventName(StrEnum):
    """What happened. docs/reference/watch.rst says when each occurs."""

    FOUND = "found"
    GONE = "gone"
    WAITING = "waiting"
    MARKED = "marked"
    DEATH = "death"
    NO_CORE = "no-core"
    ORDERLY = "orderly"
    ACTED = "acted"
    CAPTURED = "captured"
    DELETED = "deleted"
    REFRESHED = "refreshed"
    ALIVE = "alive"
    WORKER_DIED = "worker-died"
    PROBLEM = "problem"
    NOTE = "note"
    STATUS = "status"

    @property
    def passing(self) -> bool:
        """Whether it only says what the watch is doing now."""
        return self in (EventName.STATUS, EventName.ALIVE, EventName.REFRESHED)


class EventFields(TypedDict, total=False):
    """Keywords that :class:`Event` and the reporter share."""

    release: str
    kind: str
    cause: str
    signature: str
    signature_version: int
    signature_source: str
    core: Path | None
    size: int
    seconds: float
    interval: float
    complete: bool
    regions: int
    samples: int
    request: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a VM. What a field has no value for is ``None``."""

    event: EventName
    vm: str
    """The VM's name; empty if it concerns the watch as a whole."""
    text: str
    """In a line, for a person."""
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    release: str | None = None
    """Of the kernel."""
    kind: str | None = None
    """Of a death: a :class:`~kmemdump.diagnosis.death_kind.DeathKind`."""
    cause: str | None = None
    """Of a death: why, in a sentence, in the kernel's or QEMU's words."""
    signature: str | None = None
    """The same for two deaths of one bug."""
    signature_version: int | None = None
    """Of the rules that made it."""
    signature_source: str | None = None
    """What it was made from: :class:`~kmemdump.diagnosis.signature.SignatureSource`."""
    core: Path | None = None
    """The core image that was written."""
    size: int | None = None
    """Of the core image, or of what is marked, in bytes."""
    seconds: float | None = None
    """From the death to the core image, or of a refresh."""
    interval: float | None = None
    """Of a refresh: seconds from its start to that of the next."""
    complete: bool | None = None
    """Whether all is there that was asked for."""
    regions: int | None = None
    """Number of regions that are marked."""
    samples: int | None = None
    """
    Samples of the hang detector without an alarm, since the kernel was marked or since
    the last alarm.
    """
    request: int | None = None
    """Number of the request that this answers."""

    def record(self) -> Mapping[str, object]:
        """Return the fields that have a value, as JSON has them."""
        found: dict[str, object] = {"version": _VERSION}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, datetime):
                value = value.isoformat()
            elif isinstance(value, Path):
                value = str(value)
            if value is not None and item.name != "request":
                found[item.name] = value
        return found
