# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the reserved memory and the table of a backend in a machine's memory."""

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
from kmemdump.firmware.kinfo_search import find_kinfo
from kmemdump.firmware.smem_search import find_smem
from kmemdump.formats.fdt import Node, reserved_ranges
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Range

__all__ = [
    "ReservedRanges",
    "find_kinfo_range",
    "find_live_reserved",
    "find_reserved",
    "find_table",
]

_LIVE_TREE = "sys/firmware/fdt"


@dataclass(frozen=True, slots=True)
class ReservedRanges:
    """Reserved memory for the ``minidump`` backend; ``None`` if it is not known."""

    smem: Range | None = None
    scratch: Range | None = None

    @property
    def known(self) -> list[Range]:
        return [item for item in (self.smem, self.scratch) if item is not None]


def find_reserved(
    given: ReservedRanges, memory: Memory, source: str, tree: Path | None = None
) -> ReservedRanges:
    """
    Find the ranges that are not given: SMEM, and scratch memory if there is any.

    :param source: Name of the memory, for messages.
    :param tree: The machine's device tree; ``None`` looks for one in its memory.
    :raises KmemdumpError: If there is no SMEM, or the file is not a device tree.
    """
    found = given
    if tree is not None or given.scratch is None:
        found = _by_trees(given, _trees(memory, source, tree))
    if found.smem is None or (tree is None and given.smem is None):
        # A tree in memory may be another machine's: SMEM must be at its address.
        found = replace(found, smem=find_smem(memory, source))
    return found


def find_live_reserved(
    given: ReservedRanges, tree: Path | None = None, root: Path = Path("/")
) -> ReservedRanges:
    """
    Find the ranges that are not given on this machine, in its device tree.

    Memory is not searched: beside System RAM there may be devices, and reading them may
    have effects.

    :param root: The folder with ``sys``.
    :raises KmemdumpError: If there is no SMEM, or the file is not a device tree.
    """
    found = _by_trees(given, _trees(None, "live", tree, root))
    if found.smem is None:
        raise TargetError(
            f"live: no device tree with SMEM (compatible {SMEM!r})\n"
            "give its address with --smem ADDRESS:SIZE"
        )
    return found


def find_kinfo_range(
    memory: Memory | None, source: str, tree: Path | None = None, root: Path = Path("/")
) -> Range:
    """
    Find the reserved memory of Android's ``debug_kinfo``.

    :param memory: Searched for a device tree; ``None`` for this machine, whose tree is
        in a file.
    :param tree: The machine's device tree, used instead.
    :raises TargetError: If no device tree reserves any.
    """
    for node in _trees(memory, source, tree, root):
        for found in reserved_ranges(node, KINFO):
            return found
    raise TargetError(
        f"{source}: no device tree reserves memory for a kinfo (compatible {KINFO!r})\n"
        "give its address with --kinfo ADDRESS:SIZE"
    )


def find_table(memory: Memory | None, source: str) -> Range | int:
    """
    Find the table of regions in a machine's memory.

    :param memory: ``None`` for this machine, whose SMEM is not in the memory that the
        kernel shows.
    :param source: Name of the memory, for messages.
    :return: The range of SMEM, or else the physical address of a kinfo in bytes.
    :raises KmemdumpError: If there is neither, or several.
    """
    if memory is None:
        found = find_live_reserved(ReservedRanges()).smem
        assert found is not None
        return found
    try:
        return find_smem(memory, source)
    except TargetError as error:
        try:
            return find_kinfo(memory, source)
        except TargetError:
            what, _, advice = str(error).partition("\n")
            raise TargetError(f"{what}, and no debug_kinfo\n{advice}") from error


def _trees(
    memory: Memory | None, source: str, tree: Path | None, root: Path = Path("/")
) -> Iterable[Node]:
    """Return the tree in a file, or those in *memory*; ``None`` is this machine's."""
    if tree is None and memory is not None:
        return trees_in(memory, source)
    path = tree or root / _LIVE_TREE
    return [read_tree(path)] if tree or path.exists() else []


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
