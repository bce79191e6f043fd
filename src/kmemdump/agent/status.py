# SPDX-License-Identifier: GPL-2.0-or-later
"""The status of an agent: a file that it replaces after each look at the kernel."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from kmemdump.errors import FormatError, TargetError
from kmemdump.files import PartialFile
from kmemdump.marking.lock import lock_holder
from kmemdump.marking.pace import is_late

__all__ = ["Cost", "Meter", "Status", "read_all", "remove", "write"]

_VERSION = 1
_MAX_BYTES = 1 << 20
_MAX_LINES = 20


@dataclass(frozen=True, slots=True)
class Cost:
    """The memory and CPU time that an agent takes."""

    memory: int
    """Resident memory now, in bytes (VmRSS)."""
    most_memory: int
    """Its peak, in bytes (VmHWM)."""
    first_look: float
    """CPU seconds until the first look at the kernel was done."""
    each_look: float
    """CPU seconds of a refresh, on average; 0 before the first."""
    share: float
    """CPU seconds per second, from then to the next refresh: 0.01 is 1 %."""


@dataclass(frozen=True, slots=True)
class Status:
    """What an agent holds and costs. Times are seconds since the epoch."""

    target: str
    table: str
    """Backend, and where its table is."""
    pid: int
    kernel: str
    started: float
    marked: float
    """Time of the last look that succeeded."""
    interval: float
    """Seconds from the start of the last look to the next."""
    regions: int
    bytes: int
    refreshes: int
    failures: int
    failure: str
    """Why the last look failed; empty if it did not."""
    problems: Sequence[str]
    """The missing parts of the selection."""
    cost: Cost
    alive: bool = field(default=True)
    """Whether its process runs; not in the file."""

    def is_late(self, now: float) -> bool:
        """Return whether it should have looked since."""
        return is_late(self.marked, self.interval, now)


class Meter:
    """Measures the memory and CPU time of this process, once the first look is done."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._first_look = time.process_time()
        self._looks = 0
        self._looking = 0.0

    def add_look(self, seconds: float) -> None:
        """
        Count a refresh.

        :param seconds: CPU seconds that it took.
        """
        self._looks += 1
        self._looking += seconds

    def read(self, rest: float) -> Cost:
        """
        Return the cost up to now.

        :param rest: Seconds to the next refresh; until then there are no more costs.
        """
        text = Path("/proc/self/status").read_text()
        elapsed = max(time.monotonic() - self._start + max(rest, 0), 0.001)
        return Cost(
            _bytes(text, "VmRSS"),
            _bytes(text, "VmHWM"),
            round(self._first_look, 3),
            round(self._looking / self._looks, 3) if self._looks else 0.0,
            round((time.process_time() - self._first_look) / elapsed, 6),
        )


def _bytes(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def write(folder: Path, name: str, status: Status) -> None:
    """
    Write the status of the agent of a table into *folder*.

    :raises KmemdumpError: If that fails.
    """
    record = asdict(status)
    del record["alive"]
    record["problems"] = list(status.problems)[:_MAX_LINES]
    with PartialFile(folder / f"{name}.json") as file:
        text = json.dumps({"version": _VERSION, **record}, indent=2)
        file.write(f"{text}\n".encode())


def remove(folder: Path, name: str) -> None:
    """Remove the status that :func:`write` wrote."""
    (folder / f"{name}.json").unlink(missing_ok=True)


def read_all(folder: Path) -> list[Status]:
    """
    Return the status of all agents in *folder*, those that died included.

    :raises FormatError: If one of the files is not a status.
    :raises TargetError: If one cannot be read.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES)
        except OSError as error:
            raise TargetError(f"{path}: {error.strerror}") from error
        found.append(_parse(data, str(path), lock_holder(folder, path.stem)))
    return found


def _parse(data: bytes, source: str, held_by: int | None) -> Status:
    try:
        record = json.loads(data)
        if record["version"] != _VERSION:
            raise ValueError(f"version {record['version']}, expected {_VERSION}")
        cost = Cost(**{it.name: record["cost"][it.name] for it in fields(Cost)})
        alive = record["pid"] == held_by
        names = {it.name for it in fields(Status)} - {"cost", "alive"}
        values = {name: record[name] for name in names}
        return Status(**values, cost=cost, alive=alive)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FormatError(source, f"not the status of an agent: {error}") from error
