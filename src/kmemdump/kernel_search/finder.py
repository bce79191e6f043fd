# SPDX-License-Identifier: GPL-2.0-or-later
"""
Find the kernel in a memory: by its VMCOREINFO, or by what it contains.

The note is the quick way. It is not the condition: where there is none, or where it
describes a kernel that is not there, the kernel is known by its contents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

from kmemdump.arch.architecture import arch_from_info
from kmemdump.arch.pagetable import translate
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.formats.elf import Note
from kmemdump.kernel_search.completion import complete
from kmemdump.kernel_search.contents import find_kernels
from kmemdump.kernel_search.notes import find_vmcoreinfo, is_current, is_present
from kmemdump.memory.physical import Memory
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["find_by_contents", "find_kernel", "is_disproven"]

_MAX_KERNELS = 8


def find_kernel(
    memory: Memory,
    source: str,
    notes: Sequence[Note] = (),
    noted: VmcoreInfo | None = None,
    by_contents: Callable[[], VmcoreInfo | None] | None = None,
) -> VmcoreInfo | None:
    """
    Return the VMCOREINFO of the kernel that is in *memory*, completed.

    :param source: Name of the memory, for messages.
    :param notes: Notes of a dump; they may have the CPUs' page tables.
    :param noted: VMCOREINFO among them.
    :param by_contents: Called, instead of :func:`find_by_contents`, if there is no
        note of a kernel that is there.
    :return: ``None`` if there is no kernel.
    :raises FormatError: If there are several.
    """
    info, several = noted, None
    try:
        info = noted or find_vmcoreinfo(
            memory, source, lambda note: is_current(note, memory, notes)
        )
    except FormatError as error:  # Any process can write notes.
        several = error
    # A note that is in this memory has its kernel there, too.
    if info is None or is_disproven(info, memory, missing=noted is None):
        search = by_contents or partial(find_by_contents, memory, source, notes)
        info = search() or info
    if info is None and several is not None:
        raise several
    return None if info is None else complete(info, memory)


def find_by_contents(
    memory: Memory,
    source: str,
    notes: Sequence[Note] = (),
    *,
    settled: Callable[[], bool] = bool,
) -> VmcoreInfo | None:
    """
    Return the description of the kernel that is found by its contents.

    :param settled: Called if a kernel still boots: whether to pass it over.
    :raises FormatError: If several are found, and no CPU's registers tell which runs.
    """
    found: list[VmcoreInfo] = []
    for info in islice(find_kernels(memory, source, settled=settled), _MAX_KERNELS):
        if is_current(info, memory, notes):
            return info
        found.append(info)
    if len(found) > 1:
        names = ", ".join(f"{info.osrelease} ({info.source})" for info in found)
        raise FormatError(
            source,
            f"{len(found)} kernels without a note, expected one: {names}\n"
            "give the VMCOREINFO of the right one with --vmcoreinfo FILE",
        )
    return found[0] if found else None


def is_disproven(info: VmcoreInfo, memory: Memory, *, missing: bool = False) -> bool:
    """
    Return whether *memory* shows that there is no such kernel where *info* says.

    :param missing: What to return if the memory does not hold what would show it.
    """
    try:
        arch = arch_from_info(info)
        virtual = info.symbol("init_uts_ns")
        physical = arch.image_address(info, virtual)
        memory.read(physical, 1)
        if not is_present(info, memory):
            return True
        table = arch.page_table(info)
        if translate(table, memory.read, virtual) != physical:
            return True
        direct = arch.direct_map(info, lambda _variable: None)
        if direct is None:
            return False
        # Some of the image is not in the direct map of newer kernels.
        move = direct.virtual - direct.physical
        return all(
            translate(table, memory.read, it + move) != it
            for it in (physical, table.root)
        )
    except (FormatError, NotCapturedError):
        return missing
