# SPDX-License-Identifier: GPL-2.0-or-later
"""
Mark a kernel by its vmlinux, so that the core image needs none.

The questions are put with the vmlinux first, which shows what they ask for. What they
asked for is what the core image will have, and with that alone the questions are put
again: so their answers are known to be in it, and what a reader with the vmlinux reads
is, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kmemdump.areas import Area
from kmemdump.kernel.attach import Kernel, OwnDebugInfo, attach, with_unwind_tables
from kmemdump.kernel.vmlinux_info import Asked, read_vmlinux_info
from kmemdump.marking.mark import Marking, mark
from kmemdump.marking.selection import Selection
from kmemdump.memory.physical import JoinedMemory, Memory
from kmemdump.targets import Target

__all__ = ["mark_by_vmlinux"]


def mark_by_vmlinux(
    target: Target,
    vmlinux: Path,
    own: OwnDebugInfo,
    selection: Selection,
    areas: Sequence[Area],
) -> tuple[Kernel, Marking, Memory]:
    """
    Mark areas of a kernel that has not all symbols and types in its memory.

    :param own: What it has.
    :return: The kernel with its symbols and types, which came from the vmlinux; the
        marks; the memory that was read.
    :raises KmemdumpError: If the vmlinux is another kernel's.
    """
    asked = Asked()
    first = attach(target, vmlinux=vmlinux, known=own, asked=asked)
    before = _mark(first, selection, areas)
    found = read_vmlinux_info(first.prog, first.vmcoreinfo, asked, own.found)
    made = with_unwind_tables(target, found)
    kernel = attach(target, known=made)
    after = _mark(kernel, selection, areas)
    memory = JoinedMemory(
        kernel.recorder.recording(), first.recorder.recording(), target.memory
    )
    return kernel, _join(before, after), memory


def _mark(kernel: Kernel, selection: Selection, areas: Sequence[Area]) -> Marking:
    return mark(
        kernel,
        areas,
        questions=selection.questions,
        symbols=selection.symbols,
        regions=selection.regions,
        budget=selection.budget,
    )


def _join(before: Marking, after: Marking) -> Marking:
    """Return the second marks, with the blocks of both."""
    seen: set[int] = set()
    results = []
    for first, second in zip(before.areas, after.areas, strict=True):
        if second.packed:
            results.append(second)
            continue
        blocks = first.blocks | second.blocks
        results.append(
            replace(
                second,
                blocks=blocks,
                own=frozenset(blocks - seen),
                seconds=first.seconds + second.seconds,
            )
        )
        seen.update(blocks)
    return Marking(tuple(results))
