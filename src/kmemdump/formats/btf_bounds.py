# SPDX-License-Identifier: GPL-2.0-or-later
"""
Find the structures in BTF that no compiler makes, and that cost without bound.

A debugger reads a structure whole, and lists its members together with those of the
anonymous structures in it. Seventeen structures, each with the next one forty times in
it, have more members than any machine can list.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence

__all__ = ["MAX_STRUCT", "find_unbounded"]

MAX_STRUCT = 64 << 20
"""Bytes of a structure; the largest one of Debian's kernels has 334,080."""
_MAX_MEMBERS = 1 << 14
"""Members, those of anonymous structures included; Debian's kernels have up to 276."""
_MAX_DEPTH = 64
"""Anonymous structures in each other; Debian's kernels have up to 7."""

_TOO_MANY = _MAX_MEMBERS + 1


def find_unbounded(
    words: array[int],
    structs: Iterable[tuple[int, int]],
    inner: Callable[[int], tuple[int, int] | None],
) -> tuple[dict[int, str], dict[int, tuple[int, int]]]:
    """
    Return the structures that are refused, and why; and the costs of others.

    :param words: The type section.
    :param structs: Id and place, in words, of each structure and union.
    :param inner: Returns the id of the structure that an anonymous member's type stands
        for, and its number of members; ``None`` if it is none. A structure of another
        BTF has the costs there.
    :return: By id: the reasons; the numbers of members and depths, of structures with
        anonymous ones in them.
    """
    refused: dict[int, str] = {}
    parts: dict[int, tuple[int, Sequence[int]]] = {}
    """Of structures with unnamed members: how many members, and the types of those."""
    for type_id, at in structs:
        if words[at + 2] > MAX_STRUCT:
            refused[type_id] = (
                f"a structure of {words[at + 2]} bytes, expected at most {MAX_STRUCT}"
            )
        count = words[at + 1] & 0xFFFF
        end = at + 3 + 3 * count
        names = words[at + 3 : end : 3]
        if 0 in names:
            types = words[at + 4 : end : 3]
            unnamed = [
                found for found, name in zip(types, names, strict=True) if not name
            ]
            parts[type_id] = count, unnamed
    costs = _costs(parts, inner)
    for type_id, (members, depth) in costs.items():
        if members > _MAX_MEMBERS or depth > _MAX_DEPTH:
            refused[type_id] = (
                "a structure whose anonymous members have more than "
                f"{_MAX_MEMBERS} members or {_MAX_DEPTH} levels, or itself, in them"
            )
    return refused, costs


def _costs(
    parts: dict[int, tuple[int, Sequence[int]]],
    inner: Callable[[int], tuple[int, int] | None],
) -> dict[int, tuple[int, int]]:
    costs: dict[int, tuple[int, int]] = {}
    open_: dict[int, list[tuple[int, int]]] = {}
    """Structures whose inner ones are counted first, and these, with their members."""
    for first in parts:
        stack = [first]
        while stack:
            type_id = stack[-1]
            if type_id in costs:
                stack.pop()
                continue
            count, unnamed = parts[type_id]
            if type_id not in open_:
                found = [it for it in map(inner, unnamed) if it is not None]
                open_[type_id] = found
                waiting = {it for it, _ in found if it in parts and it not in costs}
                # One that waits for this one is in a circle.
                stack += [it for it in waiting if it not in open_]
                if waiting:
                    continue
            members, depth = count, 0
            for it, its_count in open_.pop(type_id):
                more, deep = costs.get(it, (its_count, 0))
                if it in parts and it not in costs:
                    more = _TOO_MANY
                members, depth = min(members + more, _TOO_MANY), max(depth, deep + 1)
            costs[type_id] = members, min(depth, _MAX_DEPTH + 1)
            stack.pop()
    return costs
