# SPDX-License-Identifier: GPL-2.0-or-later
"""What a watch knows of one VM: made of its events, kept when its worker dies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kmemdump.watch.events import Event, EventName
from kmemdump.watch.settings import INTERVAL

__all__ = ["VmStatus"]

_STATES = {
    EventName.FOUND: "found",
    EventName.WAITING: "waiting",
    EventName.MARKED: "watched",
    EventName.REFRESHED: "watched",
    EventName.ALIVE: "watched",
    EventName.DEATH: "dead",
    EventName.NO_CORE: "dead",
    EventName.GONE: "gone",
    EventName.WORKER_DIED: "not watched",
}
"""The state of a VM after an event; other events change none."""


@dataclass(slots=True)
class VmStatus:
    """What is known of one VM."""

    vm: str
    address: str
    """How it is reached."""
    since: datetime
    """When the watch found it."""
    state: str = "found"
    doing: str = ""
    """What its worker does now."""
    release: str | None = None
    """Of its kernel."""
    marked: datetime | None = None
    """When the marks were last refreshed."""
    regions: int = 0
    size: int = 0
    """Of the marks, in bytes."""
    refresh_seconds: float = 0.0
    """What the last refresh took."""
    interval: float = INTERVAL
    """Seconds from the start of the last refresh to that of the next."""
    refreshes: int = 0
    deaths: dict[str, int] = field(default_factory=dict)
    """Number of deaths, by their kind."""
    cores: int = 0
    """Number of core images."""
    last_core: str | None = None
    not_written: int = 0
    """Number of deaths of which no core image could be written."""
    worker_deaths: int = 0
    error: str | None = None
    """The last problem."""
    error_time: datetime | None = None

    def take(self, event: Event) -> None:
        """Take an event of the VM into account."""
        answer = event.request is not None
        if not (answer and event.event is EventName.NO_CORE):
            self.state = _STATES.get(event.event, self.state)
        match event.event:
            case EventName.STATUS:
                self.doing = event.text
            case EventName.MARKED | EventName.REFRESHED:
                self._take_marks(event)
            case EventName.DEATH:
                kind = event.kind or "unknown"
                self.deaths[kind] = self.deaths.get(kind, 0) + 1
            case EventName.NO_CORE if not answer:
                self.not_written += 1
            case EventName.WORKER_DIED:
                self.worker_deaths += 1
        if event.event in (EventName.DEATH, EventName.CAPTURED) and event.core:
            self.cores += 1
            self.last_core = str(event.core)
        if event.event in (
            EventName.PROBLEM,
            EventName.NO_CORE,
            EventName.WORKER_DIED,
        ):
            self.error, self.error_time = event.text, event.time

    def _take_marks(self, event: Event) -> None:
        self.marked = event.time
        self.release = event.release or self.release
        self.regions = event.regions or self.regions
        self.size = event.size or self.size
        self.refresh_seconds = event.seconds or 0.0
        self.interval = event.interval or self.interval
        if event.event is EventName.REFRESHED:
            self.refreshes += 1

    def record(self) -> Mapping[str, object]:
        """Return it as JSON has it; times are in seconds since the epoch."""
        found: dict[str, object] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            found[name] = value.timestamp() if isinstance(value, datetime) else value
        return found
