# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's device tree: the memory that it reserves for our backends."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from kmemdump.errors import FormatError, NotCapturedError, TargetError
from kmemdump.formats.fdt import FDT_MAGIC, MAX_FDT, Node, fdt_size, parse_fdt
from kmemdump.memory.physical import Memory
from kmemdump.memory.search import find_bytes

__all__ = ["KINFO", "SCRATCH", "SMEM", "read_tree", "trees_in"]

SMEM = "qcom,smem"
KINFO = "google,debug-kinfo"
SCRATCH = "kmemdump,scratch"
"""
Memory for the ELF header, VMCOREINFO and the region array of the ``minidump`` backend.
The name is ours; the kernel has no such binding.
"""

_HEAD = 40
_MAX_TREES = 100


def read_tree(path: Path) -> Node:
    """
    Read a device tree: a DTB file, or ``/sys/firmware/fdt`` of this machine.

    :raises TargetError: If it cannot be read.
    :raises FormatError: If it is not a device tree.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FDT + 1)
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror}") from error
    return parse_fdt(data, str(path))


def trees_in(memory: Memory, source: str) -> Iterator[Node]:
    """Yield the device trees in a machine's memory, by address."""
    places = find_bytes(memory, FDT_MAGIC, 8)  # The boot protocols' alignment.
    for at in islice(places, _MAX_TREES):
        try:
            size = fdt_size(memory.read(at, _HEAD))
            if size is None:
                continue
            tree = parse_fdt(memory.read(at, size), f"{source}: device tree at {at:#x}")
        except (FormatError, NotCapturedError):
            continue  # Other data with the same first bytes.
        yield tree
