# SPDX-License-Identifier: GPL-2.0-or-later
"""VMCOREINFO notes in a kernel's memory, found by their content."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice

from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.memory.physical import Memory
from kmemdump.memory.search import find_bytes
from kmemdump.vmcoreinfo import VMCOREINFO_LIMIT, VmcoreInfo

__all__ = ["read_note", "scan_vmcoreinfo"]

# Elf64_Nhdr with n_namesz 11 and n_type 0 before the name; the kernel pads names
# to 4 bytes (append_elf_note() in kernel/crash_core.c).
_NHDR = struct.Struct("<III")
_NAME = b"VMCOREINFO\0\0"
_NEEDLE = _NAME + b"OSRELEASE="
_MAX_NOTES = 1000


def scan_vmcoreinfo(memory: Memory, source: str = "memory") -> Iterator[VmcoreInfo]:
    """
    Find everything in *memory* that looks like a VMCOREINFO note.

    Stale copies are found, too: of an earlier boot, of a file in the page cache. At
    most 1000 notes are checked. Memory that cannot be read is skipped.
    """
    # At boot, a kernel allocates from its highest zone: in most cases the note is near
    # the start of the highest range.
    places = find_bytes(
        memory, _NEEDLE, 1, highest_first=True, activity="looking for a kernel"
    )
    for address in islice(places, _MAX_NOTES):
        note = read_note(memory, address - _NHDR.size, source)
        if note is not None:
            yield note


def read_note(memory: Memory, address: int, source: str) -> VmcoreInfo | None:
    """
    Read the VMCOREINFO note at a physical address; None if there is none.

    :param source: Name of the memory, for messages.
    """
    name_address = address + _NHDR.size
    try:
        namesz, descsz, type_ = _NHDR.unpack(memory.read(address, _NHDR.size))
        if namesz != len(_NAME) - 1 or type_ != 0 or not 0 < descsz <= VMCOREINFO_LIMIT:
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
