# SPDX-License-Identifier: GPL-2.0-or-later
"""
Look at a kernel again, and ask only for what changed.

A question is a function of the bytes that it reads. So all pages that the last look
read are read again and compared, and a question, or a part of it such as a task, is put
again only if a byte that it read has changed. The same drgn program is asked: what it
keeps, it keeps because it does not change while a kernel runs; what it read of that is
marked on.

All questions are put, to a program of its own, in every hundredth look, and when it is
in doubt whether that is so: if a module was loaded, if memory came or went, if the
number of CPUs changed, or if anything fails.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from kmemdump.kernel.attach import Kernel
from kmemdump.kernel.program import REGISTERS
from kmemdump.marking.asked import History
from kmemdump.marking.capture import Capture, look, mark_selected
from kmemdump.marking.mark import Marking, find_hidden
from kmemdump.marking.selection import Selection
from kmemdump.memory.physical import PAGE_SIZE, JoinedMemory
from kmemdump.memory.spans import BLOCK_SIZE
from kmemdump.targets import Target

__all__ = ["look_again"]

_logger = logging.getLogger(__name__)
_MOST = 100
"""Looks before all questions are put: so that costs a tenth more at most."""
_GROWTH = 1.1
"""By how much pages become more before those are forgotten that are not needed."""


def look_again(before: Capture, target: Target, selection: Selection) -> Capture:
    """
    Look at a kernel once more.

    :param before: The last look at this kernel, of no use afterwards; it may be of
        another *target*, and with another budget. A vmlinux is not loaded again.
    :raises KmemdumpError: If there is no kernel that can be looked at.
    """
    try:
        found = _look(before, target, selection)
    except Exception as error:  # Torn memory may break anything, in drgn too.
        _logger.info("%s: all questions are put: %s", target.name, error)
        found = None
    if found is None:
        found = look(target, selection, before.kernel, again=True)
    return found


def _look(before: Capture, target: Target, selection: Selection) -> Capture | None:
    """Return ``None`` if all questions must be put."""
    history, kernel = before.history, before.kernel
    if history is None or not history.usable or history.looks >= _MOST:
        return None
    registers = target.registers()
    if _is_other(history, kernel, target, selection, registers):
        return None
    history.usable = False  # Until this look is whole.
    now = datetime.now(UTC)
    recorder, marking = kernel.recorder, before.marking
    if not history.knows_hidden:
        marking = find_hidden(kernel, marking, selection.budget)
        history.pages = _forget_pages(kernel, marking)
    recorder.memory = target.memory
    kernel.prog.config[REGISTERS] = tuple(registers)
    kernel = replace(kernel, registers=registers)
    changes = recorder.refresh()
    if kernel.base is None or kernel.base.changed(changes):
        return None
    marking = mark_selected(kernel, selection, before=marking, changes=changes)
    pages = recorder.size
    if pages > history.pages * _GROWTH:
        pages = _forget_pages(kernel, marking)
    history = replace(
        history, looks=history.looks + 1, knows_hidden=True, pages=pages, usable=True
    )
    memory = JoinedMemory(recorder.recording(), target.memory)
    return replace(
        before,
        kernel=kernel,
        marking=marking,
        time=now,
        memory=memory,
        packing=None,
        history=history,
    )


def _is_other(
    history: History,
    kernel: Kernel,
    target: Target,
    selection: Selection,
    registers: Sequence[bytes],
) -> bool:
    """Return whether there is another kernel, machine or selection."""
    known = history.selection
    return (
        kernel.vmcoreinfo != target.vmcoreinfo()
        or history.ranges != tuple(target.memory.ranges)
        or len(kernel.registers) != len(registers)
        or known != replace(selection, budget=known.budget, vmlinux=known.vmlinux)
    )


def _forget_pages(kernel: Kernel, marking: Marking) -> int:
    """Forget pages that need not be compared; return how many are left."""
    needed = set(kernel.base_blocks)
    for area in marking.areas:
        for asked in area.asked:
            needed |= asked.blocks
    pages = {block * BLOCK_SIZE // PAGE_SIZE for block in needed}
    kernel.recorder.forget_pages(pages)
    return kernel.recorder.size
