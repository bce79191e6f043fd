# SPDX-License-Identifier: GPL-2.0-or-later
"""
The choice of the core images that go, so that the others stay within limits.

Most core images of a machine that dies again and again are of one cause. So the oldest
of the most frequent cause goes first. The first of each cause stays, since it shows how
it began, and the newest of each machine, since it shows its present state. If that is
not enough, the newest of a machine go as well, and then the first of a cause: a limit
holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Limits", "StoredCore", "choose_for_room", "choose_surplus"]

_FREE_SHARE = 0.05
_MOST_FREE = 1_000_000_000


class Limits(NamedTuple):
    """How much room core images may take."""

    keep: int = 10
    """Most core images of one machine, at least 1."""
    max_bytes: int = 4_000_000_000
    """Most bytes of all in the folder together."""
    min_free: int | None = None
    """Bytes that stay free on the file system; ``None``: 5 %, at most 1 GB."""

    def free(self, total: int) -> int:
        """Return the bytes that stay free on a file system of *total* bytes."""
        if self.min_free is not None:
            return self.min_free
        return min(int(_FREE_SHARE * total), _MOST_FREE)


@dataclass(frozen=True, slots=True, order=True)
class StoredCore:
    """A core image in a folder; they sort by age, the oldest first."""

    time: float
    """When its memory was copied: seconds since the epoch."""
    name: str
    """Name of the file."""
    size: int
    """In bytes."""
    machine: str
    """Name of the VM, or of another machine, that died."""
    cause: str
    """The same for two deaths of one cause."""


def choose_surplus(
    cores: Iterable[StoredCore], limits: Limits, fresh: Collection[str] = ()
) -> list[StoredCore]:
    """
    Return what to delete so that the others are within *limits*.

    :param cores: All in the folder.
    :param fresh: Names of those that stay in any case.
    """
    by_machine: dict[str, list[StoredCore]] = {}
    for core in sorted(cores):
        by_machine.setdefault(core.machine, []).append(core)
    gone: list[StoredCore] = []
    for own in by_machine.values():
        while len(own) > limits.keep and (least := _first_to_go(own, fresh)):
            own.remove(least)
            gone.append(least)
    left = sorted(core for own in by_machine.values() for core in own)
    size = sum(core.size for core in left)
    while size > limits.max_bytes and (least := _first_to_go(left, fresh)):
        left.remove(least)
        gone.append(least)
        size -= least.size
    return gone


def choose_for_room(
    cores: Iterable[StoredCore], need: int, fresh: Collection[str] = ()
) -> list[StoredCore]:
    """
    Return what to delete to free *need* bytes, or nothing if that is not enough.

    The first of each cause and the newest of each machine stay: that a disk is full is
    often the fault of others, and all core images together may not suffice.
    """
    left = sorted(cores)
    gone: list[StoredCore] = []
    while need > 0:
        core = _most_frequent(left, _firsts(left) | _newest(left) | set(fresh))
        if core is None:
            return []
        left.remove(core)
        gone.append(core)
        need -= core.size
    return gone


def _first_to_go(
    left: Sequence[StoredCore], fresh: Collection[str]
) -> StoredCore | None:
    """Return what is missed least; ``None`` if nothing may go."""
    firsts, kept = _firsts(left), set(fresh)
    core = _most_frequent(left, firsts | _newest(left) | kept)
    core = core or _most_frequent(left, firsts | kept)
    if core is not None:
        return core
    # Only the firsts of causes are left. A machine that invents causes must not drive
    # out those of others.
    count = Counter(core.machine for core in left)
    candidates = [core for core in left if core.name not in kept]
    return max(candidates, key=lambda core: count[core.machine], default=None)


def _most_frequent(left: Sequence[StoredCore], kept: set[str]) -> StoredCore | None:
    """Return the oldest of the most frequent cause, of those that may go."""
    count = Counter(core.cause for core in left)
    candidates = [core for core in left if core.name not in kept]
    return max(candidates, key=lambda core: count[core.cause], default=None)


def _firsts(left: Sequence[StoredCore]) -> set[str]:
    """Return the names of the first of each cause."""
    found: dict[str, str] = {}
    for core in left:
        found.setdefault(core.cause, core.name)
    return set(found.values())


def _newest(left: Sequence[StoredCore]) -> set[str]:
    """Return the names of the newest of each machine."""
    return set({core.machine: core.name for core in left}.values())
