# SPDX-License-Identifier: GPL-2.0-or-later
"""Where in a machine's memory a backend finds what it needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from kmemdump.errors import TargetError
from kmemdump.firmware.device_tree import (
    KINFO,
    SCRATCH,
    SMEM,
    read_tree,
    trees_in,
)
from kmemdump.firmware.smem_search import find_smem
from kmemdump.formats.fdt import Node, reserved_ranges
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Range

__all__ = ["ReservedRanges", "find_kinfo_range", "find_live_reserved", "find_reserved"]

_LIVE_TREE = "sys/firmware/fdt"


@dataclass(frozen=True, slots=True)
class ReservedRanges:
    """Reserved memory; ``None`` is not known."""

    smem: Range | None = None
    scratch: Range | None = None

    @property
    def known(self) -> list[Range]:
        return [place for place in (self.smem, self.scratch) if place is not None]


def find_reserved(
    given: ReservedRanges, memory: Memory, source: str, tree: Path | None = None
) -> ReservedRanges:
    """
    Find what is not given: SMEM, and scratch memory if there is some.

    :param source: Name of the memory, for messages.
    :param tree: The machine's device tree; ``None`` looks for one in its memory.
    :raises KmemdumpError: If there is no SMEM, or the file is no device tree.
    """
    found = given
    if tree is not None:
        found = _by_trees(given, [read_tree(tree)])
    elif given.scratch is None:
        found = _by_trees(given, trees_in(memory, source))
    if found.smem is None or (tree is None and given.smem is None):
        # Of a tree that happens to be in memory, the contents must prove it right.
        found = replace(found, smem=find_smem(memory, source))
    return found


def find_live_reserved(
    given: ReservedRanges, tree: Path | None = None, root: Path = Path("/")
) -> ReservedRanges:
    """
    Find what is not given on this machine, where its device tree says.

    Nothing is searched for: what is not System RAM may be a device that does not like
    to be read.

    :param root: Where ``sys`` is.
    :raises KmemdumpError: If there is no SMEM, or the file is no device tree.
    """
    found = given
    if tree is not None or (root / _LIVE_TREE).exists():
        found = _by_trees(given, [read_tree(tree or root / _LIVE_TREE)])
    if found.smem is None:
        raise TargetError(
            f"live: no device tree says where SMEM is (compatible {SMEM!r})\n"
            "give its place with --smem ADDRESS:SIZE"
        )
    return found


def find_kinfo_range(
    memory: Memory | None, source: str, tree: Path | None = None, root: Path = Path("/")
) -> Range:
    """
    Find the reserved memory of Android's ``debug_kinfo``.

    :param memory: To look for a device tree in; ``None`` for this machine's, whose
        tree is in a file.
    :param tree: The machine's device tree, instead of that.
    :raises TargetError: If no device tree has any.
    """
    trees: Iterable[Node] = ()
    if tree is None and memory is None and (root / _LIVE_TREE).exists():
        tree = root / _LIVE_TREE
    if tree is not None:
        trees = [read_tree(tree)]
    elif memory is not None:
        trees = trees_in(memory, source)
    for node in trees:
        for place in reserved_ranges(node, KINFO):
            return place
    raise TargetError(
        f"{source}: no device tree reserves memory for a kinfo (compatible {KINFO!r})\n"
        "give its place with --kinfo ADDRESS:SIZE"
    )


def _by_trees(found: ReservedRanges, trees: Iterable[Node]) -> ReservedRanges:
    for tree in trees:
        smem, scratch = reserved_ranges(tree, SMEM), reserved_ranges(tree, SCRATCH)
        found = ReservedRanges(
            found.smem or (smem[0] if smem else None),
            found.scratch or (scratch[0] if scratch else None),
        )
        if found.smem and found.scratch:
            break
    return found
