# SPDX-License-Identifier: GPL-2.0-or-later
"""
kdump-compressed dumps, as makedumpfile and QEMU write them.

makedumpfile's IMPLEMENTATION and diskdump_mod.h have the layout: a header, a
sub-header that says where the notes are, a bitmap of the pages in the machine, one of
the pages in the dump, a descriptor for each of the latter, and the pages.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kmemdump.errors import FormatError
from kmemdump.formats.elf import (
    PT_NOTE,
    Note,
    ProgramHeader,
    parse_notes,
    read_whole,
)
from kmemdump.formats.page_bitmap import PageBitmap
from kmemdump.memory.ranges import round_down, round_up

__all__ = [
    "KDUMP_MAGIC",
    "Compression",
    "Kdump",
    "PageDescriptor",
    "parse_kdump",
]

KDUMP_MAGIC = b"KDUMP   "

# struct disk_dump_header on 64-bit machines; its utsname has only .machine here.
_HEADER = struct.Struct("<8si260x65s65x6x16xIiiIIIIIIi")
_SUB_HEADER = struct.Struct("<QiiQQQQQQQQQQQ")  # struct kdump_sub_header
_DESCRIPTOR = struct.Struct("<qIIQ")  # struct page_desc
# QEMU 7.2 has a name for x86 only (ELF_MACHINE_UNAME in its include/elf.h).
_NO_MACHINE = b"Unknown"
_PAGE_SIZES = (4096, 16384, 65536)
_MAX_BITMAP = 4 << 30
"""
Most bytes of a bitmap: addresses below 128 TiB in pages of 4 KiB. x86_64 with four
levels of page tables has RAM up to 64 TiB; Arm servers have some at 64 TiB.
"""
_MAX_RANGES = 2_000_000
"""Most ranges of pages: they take 250 MB."""
# DUMP_DH_COMPRESSED_INCOMPLETE of makedumpfile's diskdump_mod.h: its disk was full.
_INCOMPLETE = 0x8
_MAX_VMCOREINFO = 1 << 20
_LAST_DESCRIPTORS = 1 << 14

Read = Callable[[int, int], bytes]


class Compression:
    """``DUMP_DH_COMPRESSED_*``: the compression of page data."""

    ZLIB = 0x1
    LZO = 0x2
    SNAPPY = 0x4
    ZSTD = 0x20
    ANY = ZLIB | LZO | SNAPPY | ZSTD


@dataclass(frozen=True, slots=True)
class PageDescriptor:
    """The place of a page: ``struct page_desc``."""

    offset: int
    """Offset in the file in bytes."""
    size: int
    """Size there in bytes."""
    flags: int
    """A :class:`Compression`, or 0."""


@dataclass(frozen=True, slots=True)
class Kdump:
    """The contents of a kdump-compressed dump's headers."""

    machine: str | None
    """As ``uname -m`` prints it; None if the headers do not say."""
    page_size: int
    """Size of a page in bytes."""
    pages: PageBitmap
    """The page frames in the dump."""
    descriptors: int
    """Offset of the first page descriptor in bytes."""
    notes: list[Note]
    problems: list[str]
    """What is wrong with notes that were passed over, one line each."""
    vmcoreinfo: bytes | None
    """Text of VMCOREINFO, if the header has it."""
    incomplete: bool
    """Whether makedumpfile marked the dump so."""
    held: int
    """
    How many pages have a descriptor: fewer than :attr:`pages` has only in a dump that
    is marked incomplete. Those with the highest addresses are missing.
    """
    room: int
    """For how many the file has room: a bitmap may claim more."""
    source: str

    def ranges(self) -> Iterator[tuple[int, int]]:
        """
        Iterate over the physical (address, size) of the memory in the dump, sorted.

        :raises FormatError: If there are too many.
        """
        left = min(self.held, self.room)
        for count, (first, end) in enumerate(self.pages.runs()):
            if count == _MAX_RANGES:
                raise FormatError(
                    self.source,
                    f"more than {_MAX_RANGES} ranges of pages, expected fewer",
                )
            pages = min(end - first, left)
            if not pages:
                return
            left -= pages
            yield first * self.page_size, pages * self.page_size

    def descriptor(self, read: Read, frame: int) -> PageDescriptor | None:
        """
        Return the place of a page.

        :return: None if the dump does not have it.
        :raises FormatError: If its descriptor is wrong.
        """
        index = self.pages.index(frame)
        if index is None or index >= self.held:
            return None
        at = self.descriptors + index * _DESCRIPTOR.size
        raw = read(at, _DESCRIPTOR.size)
        where = f"{self.source}+{at:#x}"
        if len(raw) < _DESCRIPTOR.size:
            raise FormatError(
                where, f"the file ends, expected the descriptor of page {frame:#x}"
            )
        offset, size, flags, _page_flags = _DESCRIPTOR.unpack(raw)
        if self.incomplete and offset == size == 0:
            return None
        flags &= Compression.ANY
        # A page without compression is stored in full size.
        good = 0 < size <= self.page_size if flags else size == self.page_size
        if offset <= 0 or not good:
            raise FormatError(
                where, f"page {frame:#x} has {size} bytes at offset {offset:#x}"
            )
        return PageDescriptor(offset, size, flags)

    def end(self, read: Read) -> int:
        """
        Return the least offset at which a whole dump can end.

        Pages are written in order, so the last descriptors decide.
        """
        count = self.held
        first = max(count - _LAST_DESCRIPTORS, 0)
        end = self.descriptors + count * _DESCRIPTOR.size
        table = read(
            self.descriptors + first * _DESCRIPTOR.size,
            (count - first) * _DESCRIPTOR.size,
        )
        whole = round_down(len(table), _DESCRIPTOR.size)
        for offset, size, _, _ in _DESCRIPTOR.iter_unpack(table[:whole]):
            if size <= self.page_size:  # More is damage, not truncation.
                end = max(end, offset + size)
        return end


def parse_kdump(
    read: Read, size: int, source: str, next_data: Callable[[int], int] = int
) -> Kdump:
    """
    Parse the headers of a kdump-compressed dump.

    :param next_data: Returns the first offset from one on that may not be zeros.
    :raises FormatError: If it is not such a dump, or damaged.
    """
    raw = read_whole(read, 0, _HEADER.size, size, source, "the header")
    # fmt: off
    (magic, version, machine, status, page_size, sub_blocks, bitmap_blocks,
     max_frame, _ram, _device, _written, _cpu, _cpus) = _HEADER.unpack(raw)
    # fmt: on
    if magic != KDUMP_MAGIC:
        raise FormatError(source, f"starts with {magic!r}, expected {KDUMP_MAGIC!r}")
    name = machine.partition(b"\0")[0]
    if not name.isascii():
        raise FormatError(f"{source}: utsname.machine", f"{name!r}, expected a name")
    if page_size not in _PAGE_SIZES:
        raise FormatError(
            f"{source}: block_size", f"{page_size}, expected one of {_PAGE_SIZES}"
        )
    if not 1 <= sub_blocks <= 65536:
        raise FormatError(f"{source}: sub_hdr_size", f"{sub_blocks} blocks")
    raw = read_whole(read, page_size, _SUB_HEADER.size, size, source, "the sub-header")
    # fmt: off
    (_phys_base, _level, split, _start, _end, info_at, info_size, notes_at, notes_size,
     _erase, _erase_size, _start64, _end64, max_frame64) = _SUB_HEADER.unpack(raw)
    # fmt: on
    if version >= 2 and split:
        raise FormatError(
            source,
            "one part of a dump that makedumpfile --split wrote, expected the whole\n"
            "put the parts together with makedumpfile --reassemble",
        )
    if version >= 6:
        max_frame = max_frame64
    bitmap_at = (1 + sub_blocks) * page_size
    pages = _open_bitmap(
        *(read, next_data, bitmap_at, bitmap_blocks * page_size),
        *(max_frame, size, source),
    )
    vmcoreinfo = None
    if version >= 3 and info_size:
        if info_size > _MAX_VMCOREINFO:
            raise FormatError(f"{source}: size_vmcoreinfo", f"{info_size} bytes")
        vmcoreinfo = read_whole(read, info_at, info_size, size, source, "VMCOREINFO")
    notes: list[Note] = []
    problems: list[str] = []
    if version >= 4 and notes_size:
        segment = ProgramHeader(PT_NOTE, 0, notes_at, 0, 0, notes_size, notes_size, 4)
        notes = parse_notes(read, [segment], size, source, problems)
    descriptors = bitmap_at + bitmap_blocks * page_size
    incomplete, held = bool(status & _INCOMPLETE), len(pages)
    if incomplete:
        held = _count_descriptors(read, descriptors, held)
    return Kdump(
        None if name == _NO_MACHINE else name.decode("ascii"),
        page_size,
        pages,
        descriptors,
        notes,
        problems,
        vmcoreinfo,
        incomplete,
        held,
        max(size - descriptors, 0) // _DESCRIPTOR.size,
        source,
    )


def _count_descriptors(read: Read, first: int, count: int) -> int:
    """Return how many of *count* descriptors are there: the last that is not zero."""
    unit = _LAST_DESCRIPTORS
    for start in range((count - 1) // unit * unit, -1, -unit):
        table = read(
            first + start * _DESCRIPTOR.size,
            min(unit, count - start) * _DESCRIPTOR.size,
        )
        whole = table[: round_down(len(table), _DESCRIPTOR.size)].rstrip(b"\0")
        if whole:
            return start + round_up(len(whole), _DESCRIPTOR.size) // _DESCRIPTOR.size
    return 0


def _open_bitmap(
    read: Read,
    next_data: Callable[[int], int],
    at: int,
    length: int,
    max_frame: int,
    size: int,
    source: str,
) -> PageBitmap:
    # Half of the blocks are the bitmap of the machine, half that of the dump.
    half = length // 2
    if not 0 < half <= _MAX_BITMAP:
        raise FormatError(
            f"{source}: bitmap_blocks",
            f"{length} bytes of bitmaps, expected at most {2 * _MAX_BITMAP}",
        )
    start = at + half
    if start + half > size:
        raise FormatError(
            source,
            f"the page bitmap should be at {start:#x} to {start + half:#x}, but the "
            f"file ends at {size:#x}",
        )
    if max_frame > half * 8:
        raise FormatError(
            f"{source}: max_mapnr", f"{max_frame} pages, the bitmap has {half * 8}"
        )

    def read_bits(offset: int, count: int) -> bytes:
        return read_whole(read, start + offset, count, size, source, "the page bitmap")

    return PageBitmap(
        read_bits, max_frame, lambda offset: next_data(start + offset) - start
    )
