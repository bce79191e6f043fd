# SPDX-License-Identifier: GPL-2.0-or-later
"""
Find the structures in BTF that no compiler makes, and that cost without bound.

A debugger reads a structure whole, and lists its members together with those of the
anonymous structures in it. Seventeen structures, each with the next one forty times in
it, have more members than any machine can list.

A structure is looked at when it is first used: a kernel has ten thousand, and a
question needs hundreds of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["MAX_STRUCT", "Structure", "StructureBounds"]

MAX_STRUCT = 64 << 20
"""Bytes of a structure; the largest one of Debian's kernels has 334,080."""
_MAX_MEMBERS = 1 << 14
"""Members, those of anonymous structures included; Debian's kernels have up to 276."""
_MAX_DEPTH = 64
"""Anonymous structures in each other; Debian's kernels have up to 7."""

_TOO_MANY = _MAX_MEMBERS + 1


class Structure(NamedTuple):
    """A structure or union, as far as it decides about costs."""

    size: int
    """In bytes."""
    members: int
    anonymous: Sequence[int]
    """The ids of the structures that are anonymous members of it."""


class StructureBounds:
    """
    Judges structures, each once.

    :param describe: Returns a structure by its id.
    """

    def __init__(self, describe: Callable[[int], Structure]) -> None:
        self._describe = describe
        self._costs: dict[int, tuple[int, int, int]] = {}
        """Size, number of members with those of anonymous structures, and depth."""

    def problem(self, type_id: int) -> str | None:
        """Return why a structure is refused; ``None`` if it is not."""
        if type_id not in self._costs:
            self._count(type_id)
        size, members, depth = self._costs[type_id]
        if members > _MAX_MEMBERS or depth > _MAX_DEPTH:
            return (
                "a structure whose anonymous members have more than "
                f"{_MAX_MEMBERS} members or {_MAX_DEPTH} levels, or itself, in them"
            )
        if size > MAX_STRUCT:
            return f"a structure of {size} bytes, expected at most {MAX_STRUCT}"
        return None

    def _count(self, first: int) -> None:
        costs, stack = self._costs, [first]
        open_: dict[int, Structure] = {}
        """Structures whose anonymous ones are counted first."""
        while stack:
            type_id = stack[-1]
            if type_id in costs:
                stack.pop()
                continue
            if type_id not in open_:
                open_[type_id] = self._describe(type_id)
                inner = set(open_[type_id].anonymous)
                # One that is open waits for this one: that is a circle.
                waiting = [it for it in inner if it not in costs and it not in open_]
                stack += waiting
                if waiting:
                    continue
            found = open_.pop(type_id)
            members, depth = found.members, 0
            for it in found.anonymous:
                _, more, deep = costs.get(it, (0, _TOO_MANY, 0))
                members, depth = min(members + more, _TOO_MANY), max(depth, deep + 1)
            costs[type_id] = found.size, members, min(depth, _MAX_DEPTH + 1)
            stack.pop()
