# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the kernel in a memory, among remains of earlier kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from kmemdump.arch.architecture import arch_from_info, image_address
from kmemdump.arch.pagetable import translate
from kmemdump.arch.vmcoreinfo_scan import scan_vmcoreinfo
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.formats.elf import Note
from kmemdump.memory.physical import Memory
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["find_vmcoreinfo", "is_current", "is_present"]

_MAX_ROOTS = 1024


def is_present(info: VmcoreInfo, memory: Memory) -> bool:
    """
    Return whether the kernel that *info* describes is in *memory*, where it says.

    That is, ``init_uts_ns`` has the release that *info* has. The VMCOREINFO of an
    earlier boot fails this check, because KASLR placed that kernel elsewhere.
    """
    try:
        address = image_address(info, info.symbol("init_uts_ns"))
        address += info.offset("uts_namespace.name")
        # struct new_utsname: sysname[65], nodename[65], release[65], …
        name = memory.read(address, 3 * 65)
    except (FormatError, NotCapturedError):
        return False
    release = info.osrelease.encode()[:64]
    return name.startswith(b"Linux\0") and name[130:].startswith(release + b"\0")


def find_vmcoreinfo(
    memory: Memory,
    source: str = "memory",
    is_current: Callable[[VmcoreInfo], bool] | None = None,
) -> VmcoreInfo | None:
    """
    Find the VMCOREINFO of the kernel that is in *memory*.

    Of several different notes, the one whose kernel :func:`is_present` is right: the
    others remain from earlier kernels. A single note is returned even if its kernel is
    not found where it says, since the memory map may be wrong.

    :param source: Name of the memory, for messages.
    :param is_current: Returns True if a note is certainly right, which ends the search;
        False if it is not known.
    :return: None if there is no note.
    :raises FormatError: If several different notes are left.
    """
    notes: list[VmcoreInfo] = []
    for note in scan_vmcoreinfo(memory, source):
        if note not in notes:
            if is_current is not None and is_current(note):
                return note
            notes.append(note)
    if len(notes) > 1:
        notes = [note for note in notes if is_present(note, memory)] or notes
    if len(notes) > 1:
        found = ", ".join(f"{note.osrelease} ({note.source})" for note in notes[:5])
        raise FormatError(
            source,
            f"{len(notes)} different VMCOREINFO notes, expected one: {found}\n"
            "give the right one with --vmcoreinfo FILE",
        )
    return notes[0] if notes else None


def is_current(info: VmcoreInfo, memory: Memory, notes: Iterable[Note]) -> bool:
    """
    Return whether a CPU runs the kernel that *info* describes.

    :param notes: Notes of a dump; they may have the CPUs' page tables.
    :return: False if it is not known.
    """
    if not is_present(info, memory):
        return False
    arch = arch_from_info(info)
    for root in islice(arch.page_table_roots(notes), _MAX_ROOTS):
        try:
            virtual = info.symbol("init_uts_ns")
            table = arch.page_table(info)._replace(root=root)
            # In user space, a CPU may have a page table without the kernel.
            found = translate(table, memory.read, virtual)
            if found == arch.image_address(info, virtual):
                return True
        except (FormatError, NotCapturedError):
            continue
    return False
