# SPDX-License-Identifier: GPL-2.0-or-later
"""The status of a watch, as its control socket sends it, in types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from kmemdump.errors import FormatError, TargetError
from kmemdump.marking.pace import is_late
from kmemdump.watch.control.client import ask, watches

__all__ = ["VmRecord", "WatchStatus", "read_watch", "read_watches"]

_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class VmRecord:
    """One VM. Times are seconds since the epoch."""

    vm: str
    address: str
    since: float
    state: str
    doing: str
    release: str | None
    marked: float | None
    regions: int
    size: int
    refresh_seconds: float
    interval: float
    """Seconds from the start of the last refresh to that of the next."""
    refreshes: int
    deaths: Mapping[str, int]
    cores: int
    last_core: str | None
    not_written: int
    worker_deaths: int
    error: str | None
    error_time: float | None
    pid: int | None
    """Of its worker."""
    memory: int
    """Resident memory of its worker, in bytes."""
    cpu_seconds: float
    """CPU time of its worker."""

    def is_late(self, now: float) -> bool:
        """Return whether its marks should have been refreshed since."""
        return self.marked is None or is_late(self.marked, self.interval, now)


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """One watch."""

    pid: int
    started: float
    folder: str
    """Where core images are written."""
    vms: Sequence[VmRecord] = field(default_factory=tuple)


def read_watches(folder: Path) -> list[WatchStatus]:
    """
    Ask all watches for their status.

    :param folder: Where their control sockets are.
    :raises TargetError: If one does not answer; not if it has just ended.
    :raises FormatError: If an answer is none.
    """
    found = []
    for path in watches(folder):
        try:
            answer = ask(path, do="status")
        except TargetError:
            if path.exists():
                raise
            continue
        found.append(_parse(answer, str(path)))
    return found


def read_watch(control: Path) -> WatchStatus:
    """
    Ask one watch for its status.

    :raises TargetError: If it does not answer.
    :raises FormatError: If the answer is none.
    """
    return _parse(ask(control, do="status"), str(control))


def _parse(answer: Mapping[str, Any], source: str) -> WatchStatus:
    try:
        if answer["version"] != _VERSION:
            raise ValueError(f"version {answer['version']}, expected {_VERSION}")
        names = [it.name for it in fields(VmRecord)]
        vms = [VmRecord(**{name: vm[name] for name in names}) for vm in answer["vms"]]
        own = [it.name for it in fields(WatchStatus) if it.name != "vms"]
        return WatchStatus(**{name: answer[name] for name in own}, vms=vms)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(source, f"not the status of a watch: {error}") from error
