# SPDX-License-Identifier: GPL-2.0-or-later
"""
The regions that describe a backend's dump, and so make it an ELF core file.

Layout, as in the kernel's kmemdump series: region 1 is the ELF header, the program
headers and all notes up to the head of the VMCOREINFO note; region 2 is the text of
that note, and completes it by following directly; then comes the data of one
``PT_LOAD`` for each other region.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kmemdump.backends import ELF_HEADER_ID, VMCOREINFO_ID
from kmemdump.formats.elf import (
    PF_R,
    PF_W,
    PT_LOAD,
    PT_NOTE,
    ProgramHeader,
    header_size,
    pack_header,
    pack_note,
)
from kmemdump.formats.elfheader import LABEL, MARKED
from kmemdump.formats.notes import NoteType, pack_own
from kmemdump.memory.ranges import ADDRESS_SPACE, Region, round_up

__all__ = ["Description", "describe", "row_name"]

_NOTE_ALIGNMENT = 4  # Of names and descriptors, as in Linux's 64-bit cores.
_NO_VIRTUAL = 1 << 63


_NAMES = {ELF_HEADER_ID: "KELF", VMCOREINFO_ID: "Kvmcorein"}
_STRANGE = re.compile(r"[^A-Za-z0-9_]")


@dataclass(frozen=True, slots=True)
class Description:
    """The description of a self-describing dump, besides its regions."""

    machine: int
    """ELF ``e_machine``."""
    vmcoreinfo: bytes
    """Text of the VMCOREINFO note."""
    notes: bytes = b""
    """Packed notes that come before it, such as NT_PRSTATUS for each CPU."""
    direct_map: int | None = None
    """Virtual address of physical address 0, for regions without a virtual one."""
    image: tuple[int, int, int] | None = None
    """
    Virtual and physical address and size of the kernel's image, in bytes. Memory in the
    image gets its virtual address there, not that in the direct map.
    """
    marked: int | None = None
    """When the regions were marked: seconds since the epoch."""


def row_name(region: Region) -> str:
    """
    Return the name of a region in the table: at most 9 characters.

    Firmware makes file names of it, so only letters and digits are kept.
    """
    return _NAMES.get(region.id) or f"K{_STRANGE.sub('_', region.name)[:8]}"


def describe(
    description: Description,
    regions: Sequence[Region],
    *,
    slots: int | None = None,
    alignment: int = 1,
) -> tuple[bytes, bytes]:
    """
    Build the first two regions of a dump of *regions*.

    :param slots: Room for this many regions, so that the size stays the same whatever
        their number is; ``None`` for just enough. A note of our own has their names and
        numbers, since firmware makes a file of each.
    :param alignment: The dump pads each region to a multiple of this many bytes.
    :return: The ELF header region, and VMCOREINFO padded.
    """
    unit = max(alignment, _NOTE_ALIGNMENT)
    note = pack_note("VMCOREINFO", 0, description.vmcoreinfo)
    text_size = round_up(len(description.vmcoreinfo), _NOTE_ALIGNMENT)
    notes = _padded(description.notes, _NOTE_ALIGNMENT)
    notes += _labels(regions, slots or 0)
    if description.marked is not None:
        notes += pack_own(NoteType.MARKED, MARKED.pack(description.marked))
    notes += note[: -text_size or None]
    vmcoreinfo = _padded(description.vmcoreinfo, unit)

    # Unused slots are a gap between the program headers and the notes.
    count = max(len(regions), slots or 0) + 1
    end = round_up(header_size(count) + len(notes), unit)
    notes_offset = end - len(notes)
    notes_size = len(notes) + text_size
    headers = [ProgramHeader(PT_NOTE, 0, notes_offset, 0, 0, notes_size, 0, 0)]
    offset = end + len(vmcoreinfo)
    for region in regions:
        virtual = _virtual(region, description)
        size = region.size
        headers.append(
            # crash takes p_align 0 for the mark of kdump's cores, and its
            # rules for KERNELOFFSET apply to those only.
            ProgramHeader(
                PT_LOAD, PF_R | PF_W, offset, virtual, region.address, size, size, 0
            )
        )
        offset += round_up(size, alignment)
    table = pack_header(description.machine, headers)
    return table.ljust(notes_offset, b"\0") + notes, vmcoreinfo


def _labels(regions: Sequence[Region], slots: int) -> bytes:
    """Return labels that link the dump's files to regions: files have no addresses."""
    labels = [LABEL.pack(it.id, row_name(it).encode("ascii")) for it in regions]
    size = max(slots, len(regions)) * LABEL.size
    return pack_own(NoteType.LABELS, b"".join(labels).ljust(size, b"\0"))


def _virtual(region: Region, description: Description) -> int:
    if region.virtual is not None:
        return region.virtual
    if description.image is not None:
        virtual, physical, size = description.image
        start = region.address - physical
        if start >= 0 and start + region.size <= size:
            return virtual + start
    if description.direct_map is not None:
        virtual = description.direct_map + region.address
        if virtual + region.size <= ADDRESS_SPACE:
            return virtual
    # Address 0 would make NULL pointers readable. No kernel uses this one: it is
    # not canonical on x86_64, and in neither half on aarch64.
    return region.address | _NO_VIRTUAL


def _padded(data: bytes, unit: int) -> bytes:
    return data.ljust(round_up(len(data), unit), b"\0")
