# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the kernel in a memory, among remains of earlier kernels."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from kmemdump.arch.architecture import arch_from_info, image_address
from kmemdump.arch.pagetable import translate
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.formats.elf import Note
from kmemdump.memory.physical import PAGE_SIZE, Memory
from kmemdump.memory.search import find_bytes
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = [
    "find_vmcoreinfo",
    "is_current",
    "is_present",
    "read_note",
    "scan_vmcoreinfo",
    "uts_name_offset",
]

logger = logging.getLogger(__name__)

_MAX_ROOTS = 1024
# Elf64_Nhdr with n_namesz 11 and n_type 0 before the name; the kernel pads names
# to 4 bytes (append_elf_note() in kernel/crash_core.c).
_NHDR = struct.Struct("<III")
_NAME = b"VMCOREINFO\0\0"
_NEEDLE = bytes(4) + _NAME + b"OSRELEASE="  # The note's type is before its name.
_MAX_NOTES = 1000
"""Most different notes that are looked at."""
_NOTES_IN_A_PAGE = 4
"""
Most places in a page that are looked at: the kernel's note has pages of its own
(crash_save_vmcoreinfo_init() in kernel/vmcore_info.c), but any process can fill pages.
"""
_MAX_PARSED = 32 << 20
"""Most bytes of notes that are parsed."""
_MAX_NOTE = 64 << 10
"""Most bytes of a note: the kernel's limit is a page."""
_SYSNAME = b"Linux\0"
_MAX_NAME_OFFSET = 64  # Before the name, there is a reference count at most.


def is_present(info: VmcoreInfo, memory: Memory) -> bool:
    """
    Return whether *memory* has the kernel of *info* at the address in *info*.

    That is, ``init_uts_ns`` has the same release as *info*. The VMCOREINFO of an
    earlier boot fails this check, because KASLR placed that kernel elsewhere.
    """
    try:
        address = image_address(info, info.symbol("init_uts_ns"))
        address += uts_name_offset(info, memory)
        # struct new_utsname: sysname[65], nodename[65], release[65], …
        name = memory.read(address, 3 * 65)
    except (FormatError, NotCapturedError):
        return False
    release = info.osrelease.encode()[:64]
    return name.startswith(_SYSNAME) and name[130:].startswith(release + b"\0")


def uts_name_offset(info: VmcoreInfo, memory: Memory) -> int:
    """
    Return the offset in bytes of ``uts_namespace.name``.

    :raises NotCapturedError: If neither *info* has it nor the memory shows it.
    """
    if "OFFSET(uts_namespace.name)" in info.values:
        return info.offset("uts_namespace.name")
    # Since Linux kernel commit ca4a9241cc5e ("kdump: append uts_namespace.name offset
    # to VMCOREINFO") (in v5.11) there is a line.
    address = image_address(info, info.symbol("init_uts_ns"))
    start = memory.read(address, _MAX_NAME_OFFSET + len(_SYSNAME)).find(_SYSNAME)
    if start < 0:
        raise NotCapturedError(f"{info.source}: init_uts_ns holds no name")
    return start


def find_vmcoreinfo(
    memory: Memory,
    source: str = "memory",
    is_current: Callable[[VmcoreInfo], bool] | None = None,
) -> VmcoreInfo | None:
    """
    Find the VMCOREINFO of the kernel that is in *memory*.

    Of several different notes, the right one is that whose kernel :func:`is_present`;
    the others remain from earlier kernels. A single note is returned even if its kernel
    is not found at the address in it, since the memory map may be wrong.

    :param source: Name of the memory, for messages.
    :param is_current: Returns True if a note is certainly right, which ends the search;
        False if it is not known.
    :return: None if there is no note.
    :raises FormatError: If several different notes are left.
    """
    seen: dict[VmcoreInfo, None] = {}
    for note in scan_vmcoreinfo(memory, source):
        if note not in seen:
            if is_current is not None and is_current(note):
                return note
            seen[note] = None
    notes = list(seen)
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


def scan_vmcoreinfo(memory: Memory, source: str = "memory") -> Iterator[VmcoreInfo]:
    """
    Find everything in *memory* that looks like a VMCOREINFO note.

    Stale copies are found, too: of an earlier boot, of a file in the page cache.
    Processes may fill memory with what looks like one: only what can be parsed counts,
    and the search ends after 1000 different notes, or 32 MiB of them. Memory that
    cannot be read is skipped.
    """
    # At boot, a kernel allocates from its highest zone: in most cases the note is near
    # the start of the highest range.
    places = find_bytes(
        memory, _NEEDLE, 1, highest_first=True, activity="looking for a kernel"
    )
    found: set[VmcoreInfo] = set()
    parsed = page = in_page = 0
    for address in places:
        if address // PAGE_SIZE != page:
            page, in_page = address // PAGE_SIZE, 0
        in_page += 1
        if in_page > _NOTES_IN_A_PAGE:
            continue
        start = address + 4 - _NHDR.size
        size = _note_size(memory, start)
        if size is None:
            continue
        parsed += size
        note = read_note(memory, start, source)
        if note is not None:
            found.add(note)
            yield note
        if parsed > _MAX_PARSED or len(found) >= _MAX_NOTES:
            logger.warning(
                "%s: the search for VMCOREINFO ended after %d notes: memory is full of "
                "what looks like one",
                *(source, len(found)),
            )
            return


def _note_size(memory: Memory, address: int) -> int | None:
    """Return the bytes of text that the header of a note claims, if it is like ours."""
    try:
        namesz, descsz, type_ = _NHDR.unpack(memory.read(address, _NHDR.size))
    except NotCapturedError:
        return None
    good = namesz == len(_NAME) - 1 and type_ == 0 and 0 < descsz <= _MAX_NOTE
    return descsz if good else None


def read_note(memory: Memory, address: int, source: str) -> VmcoreInfo | None:
    """
    Read the VMCOREINFO note at a physical address; None if there is none.

    :param source: Name of the memory, for messages.
    """
    name_address = address + _NHDR.size
    try:
        descsz = _note_size(memory, address)
        if descsz is None:
            return None
        raw = memory.read(name_address + len(_NAME), descsz)
        note = VmcoreInfo.parse(raw, f"{source}, VMCOREINFO at {address:#x}")
        # Every kernel writes these, at the beginning and at the end: a copy that was
        # partly overwritten ends before KERNELOFFSET, or is not text.
        if note.page_size not in (4096, 16384, 65536):
            return None
        note.symbol("init_uts_ns")
        note.symbol("swapper_pg_dir")
        if "KERNELOFFSET" not in note.values:
            return None
    except (FormatError, NotCapturedError):
        return None
    return note
