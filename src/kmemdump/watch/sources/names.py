# SPDX-License-Identifier: GPL-2.0-or-later
"""
Names of VMs, made of the paths of their sockets.

A name is a part of the names of core images and of what is kept about a VM, so it must
not depend on which other VMs there are just now.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from kmemdump.errors import UsageError

__all__ = [
    "Names",
    "SocketPattern",
    "clean_name",
    "is_pattern",
    "name_vms",
    "numbered",
]

_MAX_NAME = 100
_WILDCARDS = frozenset("*?[")


class Names:
    """Gives each VM a name that no other has, and that it keeps."""

    def __init__(self) -> None:
        self._names: dict[Hashable, str] = {}
        self._taken: set[str] = set()

    def keep(self, vm: Hashable, name: str) -> None:
        """Give a VM a name that is known to be its own."""
        self._names[vm] = name
        self._taken.add(name)

    def name(self, vm: Hashable, candidates: Callable[[], Iterator[str]]) -> str:
        """
        Return the name of a VM.

        :param vm: What identifies it, whenever it comes again.
        :param candidates: Yields names, the best first; asked at the first time.
        """
        if vm not in self._names:
            free = (name for name in candidates() if name not in self._taken)
            self.keep(vm, next(free))
        return self._names[vm]

    def forget_others(self, vms: Iterable[Hashable]) -> None:
        """Forget the names of all other VMs, which are free again."""
        there = set(vms)
        self._names = {vm: name for vm, name in self._names.items() if vm in there}
        self._taken = set(self._names.values())


@dataclass(frozen=True, slots=True)
class SocketPattern:
    """Paths of sockets, as a person writes them for many VMs."""

    text: str
    """For :mod:`glob`."""
    open_places: tuple[int, ...]
    """Which parts of a path it leaves open."""

    def names(self, path: Path) -> Iterator[str]:
        """
        Yield names of the VM whose socket was found at *path*, the best first.

        The best is made of the parts that the pattern leaves open: of
        ``/run/*/qmp.sock``, the folder's name. It is the same whichever VMs there are.
        """
        parts = [*path.parts[:-1], path.stem]
        yield clean_name("-".join(parts[place] for place in self.open_places))
        # Sockets that differ only in their suffix, or another argument's VM.
        yield clean_name(path.name)
        for depth in range(2, len(path.parts) + 1):
            yield _name(path, depth)
        yield from numbered(_name(path, len(path.parts)))


def numbered(name: str) -> Iterator[str]:
    """Yield a name, then the same with numbers."""
    yield name
    for number in count(2):
        yield f"{name}-{number}"


def name_vms(sockets: Sequence[str]) -> dict[str, Path]:
    """
    Return the absolute path of each socket by the shortest unique name of its VM.

    :param sockets: Paths, with or without ``qmp:``.
    :raises UsageError: If a socket is given twice.
    """
    paths = [Path(spec.removeprefix("qmp:")).absolute() for spec in sockets]
    if len(set(paths)) < len(paths):
        raise UsageError("a socket is named twice, expected each VM once")
    longest = max((len(path.parts) for path in paths), default=0)
    for depth in range(1, longest + 1):
        names = [_name(path, depth) for path in paths]
        if len(set(names)) == len(names):
            break
    else:
        names = [f"{_name(path, longest)}-{i}" for i, path in enumerate(paths, 1)]
    return dict(zip(names, paths, strict=True))


def is_pattern(text: str) -> bool:
    """Return whether a path, or a part of one, has ``*``, ``?`` or ``[``."""
    return not _WILDCARDS.isdisjoint(text)


def clean_name(name: str) -> str:
    """Return a name as a part of a file's name."""
    clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return clean.strip("-.")[-_MAX_NAME:] or "vm"


def _name(path: Path, depth: int) -> str:
    """Return the last *depth* parts of a path as a part of a file's name."""
    parts = [*path.parts[-depth:-1], path.stem or path.name]
    return clean_name("-".join(part.strip("/") for part in parts))
