# SPDX-License-Identifier: GPL-2.0-or-later
"""
The last deaths of one VM, in a small file beside its core images.

It outlives the process that watches the VM, and core images that somebody took away.
Without it, a VM that is dead and paused would be dumped again by each new watcher, and
one that dies in each boot would be reset for ever, as fast as it boots.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kmemdump.errors import KmemdumpError
from kmemdump.files import PartialFile, read_own_file
from kmemdump.watch.death.pending import Pending

__all__ = ["DeathHistory"]

_VERSION = 1
_MAX_BYTES = 1 << 18
_MAX_DEATHS = 32
"""Deaths and causes that are remembered."""
_MAX_TEXT = 1024
_MAX_COUNT = 1 << 40

_LOOP = 600.0
"""Seconds: a VM that dies sooner than that after its start is in a loop."""
_FREE_RESETS = 3
"""Resets in a loop that do not wait."""
_FIRST_WAIT = 5.0
"""Seconds; each later reset waits twice as long."""
_LONGEST_WAIT = 300.0
_SAME_CAUSE = 3600.0
"""
Seconds without a death of a cause after which it counts from the start, and without a
core image of it after which there is one again.
"""
_MAX_GAP = 1023


@dataclass(slots=True)
class _Cause:
    """Deaths of one cause, which follow each other closely."""

    deaths: int = 0
    last: float = 0.0
    """When the last one was: seconds since the epoch."""
    dumped: float = 0.0
    """When the last core image was written."""
    gap: int = 0
    """Deaths without a core image after the last one with one."""
    skipped: int = 0
    """How many of these have been."""


@dataclass(slots=True)
class _State:
    dumped: dict[str, str] = field(default_factory=dict)
    """Name of the core image of each death, by the death's id; the oldest first."""
    causes: dict[str, _Cause] = field(default_factory=dict)
    """By signature; the one seen last comes last."""
    started: float = 0.0
    """When the VM was started again after its last death; 0 if it was not."""
    loop: int = 0
    """Deaths that each followed soon after a start."""
    waiting: str = ""
    """Id of a death that was seen, and after which nothing was done with the VM yet."""
    pending: Pending | None = None


class DeathHistory:
    """
    The last deaths of one VM.

    :param folder: For core images.
    :param vm: Name of the VM.
    :param clock: Returns the seconds since the epoch.
    :param tag: Returns what stands in the file for a signature.
    """

    def __init__(
        self,
        folder: Path,
        vm: str,
        clock: Callable[[], float] = time.time,
        tag: Callable[[str], str] = str,
    ) -> None:
        self._path = folder / f".{vm}.deaths"
        self._tag = tag
        self._clock = clock
        self._state = _load(self._path)

    def core_of(self, id: str) -> str | None:
        """Return the name of the core image of a death that was dumped before."""
        return self._state.dumped.get(id) if id else None

    def is_waiting(self, id: str) -> bool:
        """
        Return whether a watcher saw this death happen, and did nothing with the VM yet.

        It was stopped before, most likely.
        """
        return id != "" and self._state.waiting == id

    def count(self, signature: str) -> int:
        """Return how many deaths of a cause have followed each other closely."""
        cause = self._state.causes.get(self._tag(signature))
        return cause.deaths if cause else 0

    def is_dumped(self, signature: str, keep: int) -> bool:
        """
        Return whether the next death of a cause is dumped.

        The first ones are. When there are as many core images as are kept, another one
        says little, and drives out one like it: then the gaps double.

        :param keep: Most core images of the VM.
        """
        cause = self._state.causes.get(self._tag(signature))
        if cause is None or not self._follows(cause.last, _SAME_CAUSE):
            return True
        return (
            cause.deaths < keep
            or cause.skipped >= cause.gap
            or not self._follows(cause.dumped, _SAME_CAUSE)
        )

    @property
    def pending(self) -> Pending | None:
        """What a watch had paused a VM for that ended before it did something else."""
        return self._state.pending

    def note_pending(self, pending: Pending) -> None:
        """Note what the VM is paused for, before anything about it is known."""
        self._state.pending = pending

    def note_death(
        self, id: str, signature: str, *, survived: bool = False, ours: bool = True
    ) -> None:
        """
        Note a death, before anything is done about it; once, if it can be told.

        :param survived: Whether the kernel lives on.
        :param ours: Whether the next watch may act on it.
        """
        state, now = self._state, self._clock()
        signature = self._tag(signature)
        if self.is_waiting(id):
            return
        cause = state.causes.pop(signature, None)
        if cause is None or not self._follows(cause.last, _SAME_CAUSE):
            cause = _Cause()
        cause.deaths += 1
        cause.last = now
        state.causes[signature] = cause
        _cut(state.causes)
        state.waiting = id if ours else ""
        if not survived:
            in_loop = state.started and self._follows(state.started, _LOOP)
            state.loop = state.loop + 1 if in_loop else 0
            state.started = 0.0

    def note_core(self, id: str, signature: str, name: str, keep: int) -> None:
        """Note that the death that was noted last has a core image."""
        cause = self._state.causes.setdefault(self._tag(signature), _Cause())
        cause.dumped, cause.skipped = self._clock(), 0
        cause.gap = min(2 * cause.gap + 1, _MAX_GAP) if cause.deaths > keep else 0
        if id:
            self._state.dumped[id] = name
            _cut(self._state.dumped)

    def note_skipped(self, signature: str) -> None:
        """Note that the death that was noted last has no core image on purpose."""
        self._state.causes.setdefault(self._tag(signature), _Cause()).skipped += 1

    def note_action(self, *, started: bool) -> None:
        """
        Note that something was done with the VM after its last death.

        :param started: Whether it boots again.
        """
        self._state.waiting, self._state.pending = "", None
        self._state.started = self._clock() if started else 0.0

    @property
    def deaths_in_a_row(self) -> int:
        """How many deaths each followed soon after a start."""
        return self._state.loop + 1

    @property
    def wait(self) -> float:
        """Seconds that the VM stays paused before it is reset."""
        over = self._state.loop - _FREE_RESETS
        if over < 0:
            return 0.0
        return min(_FIRST_WAIT * (1 << min(over, 30)), _LONGEST_WAIT)

    def save(self) -> str | None:
        """Write the file; return the problem if that fails."""
        record = {"version": _VERSION, **asdict(self._state)}
        try:
            with PartialFile(self._path) as output:
                output.write(json.dumps(record).encode() + b"\n")
        except (KmemdumpError, OSError) as error:
            return str(error)
        return None

    def _follows(self, then: float, seconds: float) -> bool:
        # A clock that was set back must not make a loop look like an old story.
        return self._clock() - then <= seconds


def _cut(items: dict[str, Any]) -> None:
    """Forget the oldest items."""
    while len(items) > _MAX_DEATHS:
        del items[next(iter(items))]


def _load(path: Path) -> _State:
    """Read the file; what is missing or wrong in it was never noted."""
    try:
        data = read_own_file(path, _MAX_BYTES)
        record = None if data is None else json.loads(data)
    except (OSError, ValueError, RecursionError):
        return _State()
    if not isinstance(record, dict) or record.get("version") != _VERSION:
        return _State()
    dumped = _texts(record.get("dumped"))
    causes = {name: _to_cause(item) for name, item in _items(record.get("causes"))}
    _cut(dumped)
    _cut(causes)
    waiting = record.get("waiting")
    return _State(
        dumped,
        causes,
        _number(record.get("started")),
        int(_number(record.get("loop"))),
        waiting if isinstance(waiting, str) else "",
        Pending.read(record.get("pending")),
    )


def _items(value: object) -> list[tuple[str, Any]]:
    items = value.items() if isinstance(value, Mapping) else ()
    return [item for item in items if len(item[0]) <= _MAX_TEXT]


def _texts(value: object) -> dict[str, str]:
    return {
        name: item
        for name, item in _items(value)
        # It names a file of this folder, and is printed.
        if isinstance(item, str) and item.isprintable() and "/" not in item
    }


def _to_cause(value: object) -> _Cause:
    record = dict(_items(value))
    return _Cause(
        deaths=int(_number(record.get("deaths"))),
        last=_number(record.get("last")),
        dumped=_number(record.get("dumped")),
        gap=min(int(_number(record.get("gap"))), _MAX_GAP),
        skipped=int(_number(record.get("skipped"))),
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return value if 0 <= value <= _MAX_COUNT else 0.0  # Not if it is no number at all.
