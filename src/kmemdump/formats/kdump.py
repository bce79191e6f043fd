# SPDX-License-Identifier: GPL-2.0-or-later
"""
kdump-compressed dumps, as makedumpfile and QEMU write them.

makedumpfile's IMPLEMENTATION and diskdump_mod.h have the layout: a header, a
sub-header that says where the notes are, a bitmap of the pages in the machine, one of
the pages in the dump, a descriptor for each of the latter, and the pages.
"""

from __future__ import annotations

import re
import struct
from array import array
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
from kmemdump.memory.ranges import round_down

__all__ = [
    "KDUMP_MAGIC",
    "Compression",
    "Kdump",
    "PageBitmap",
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
_MAX_BITMAP = 256 << 20
"""Most bytes of a bitmap: 8 TiB of RAM in pages of 4 KiB."""
_MAX_RANGES = 8_000_000
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


class PageBitmap:
    """A set of page frames, with the number of members below each."""

    _BLOCK = 4096

    def __init__(self, bits: bytes) -> None:
        self.bits = bits
        self.counts: array[int] = array("Q", [0])
        for start in range(0, len(bits), self._BLOCK):
            block = int.from_bytes(bits[start : start + self._BLOCK], "little")
            self.counts.append(self.counts[-1] + block.bit_count())

    def __len__(self) -> int:
        return self.counts[-1]

    def index(self, frame: int) -> int | None:
        """Return how many members are below *frame*; None if it is not a member."""
        byte, bit = frame >> 3, frame & 7
        if byte >= len(self.bits) or not self.bits[byte] >> bit & 1:
            return None
        block = byte // self._BLOCK
        below = self.bits[block * self._BLOCK : byte]
        last: int = self.bits[byte] & ((1 << bit) - 1)
        within = int.from_bytes(below, "little").bit_count() + last.bit_count()
        return self.counts[block] + within

    def runs(self) -> Iterator[tuple[int, int]]:
        """Iterate over the (first, end) of runs of members."""
        first = -1  # Start of the open run.
        for match in re.finditer(rb"\x00+|\xff+|[^\x00\xff]", self.bits):
            value = self.bits[match.start()]
            frame = match.start() * 8
            if value in (0, 0xFF):
                if value and first < 0:
                    first = frame
                elif not value and first >= 0:
                    yield first, frame
                    first = -1
                continue
            for bit in range(8):
                if value >> bit & 1:
                    if first < 0:
                        first = frame + bit
                elif first >= 0:
                    yield first, frame + bit
                    first = -1
        if first >= 0:
            yield first, len(self.bits) * 8


@dataclass(frozen=True, slots=True)
class Kdump:
    """The contents of a kdump-compressed dump's headers."""

    machine: str | None
    """As ``uname -m`` prints it; None if the headers do not say."""
    page_size: int
    """Size of a page in bytes."""
    pages: PageBitmap
    """The page frames in the dump."""
    ranges: list[tuple[int, int]]
    """Physical (address, size) of the memory in the dump, sorted."""
    descriptors: int
    """Offset of the first page descriptor in bytes."""
    notes: list[Note]
    vmcoreinfo: bytes | None
    """Text of VMCOREINFO, if the header has it."""
    source: str

    def descriptor(self, read: Read, frame: int) -> PageDescriptor | None:
        """
        Return the place of a page.

        :return: None if the dump does not have it.
        :raises FormatError: If its descriptor is wrong.
        """
        index = self.pages.index(frame)
        if index is None:
            return None
        at = self.descriptors + index * _DESCRIPTOR.size
        raw = read(at, _DESCRIPTOR.size)
        where = f"{self.source}+{at:#x}"
        if len(raw) < _DESCRIPTOR.size:
            raise FormatError(
                where, f"the file ends, expected the descriptor of page {frame:#x}"
            )
        offset, size, flags, _page_flags = _DESCRIPTOR.unpack(raw)
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
        count = sum(size for _, size in self.ranges) // self.page_size
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


def parse_kdump(read: Read, size: int, source: str) -> Kdump:
    """
    Parse the headers of a kdump-compressed dump.

    :raises FormatError: If it is not such a dump, or damaged.
    """
    raw = read_whole(read, 0, _HEADER.size, size, source, "the header")
    # fmt: off
    (magic, version, machine, _status, page_size, sub_blocks, bitmap_blocks,
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
    bits = _read_bitmap(
        read, bitmap_at, bitmap_blocks * page_size, max_frame, size, source
    )
    pages = PageBitmap(bits)
    ranges: list[tuple[int, int]] = []
    for first, end in pages.runs():
        if len(ranges) == _MAX_RANGES:
            raise FormatError(source, f"more than {_MAX_RANGES} ranges of pages")
        ranges.append((first * page_size, (end - first) * page_size))
    vmcoreinfo = None
    if version >= 3 and info_size:
        if info_size > _MAX_VMCOREINFO:
            raise FormatError(f"{source}: size_vmcoreinfo", f"{info_size} bytes")
        vmcoreinfo = read_whole(read, info_at, info_size, size, source, "VMCOREINFO")
    notes: list[Note] = []
    if version >= 4 and notes_size:
        segment = ProgramHeader(PT_NOTE, 0, notes_at, 0, 0, notes_size, notes_size, 4)
        notes = parse_notes(read, [segment], size, source)
    descriptors = bitmap_at + bitmap_blocks * page_size
    return Kdump(
        None if name == _NO_MACHINE else name.decode("ascii"),
        page_size,
        pages,
        ranges,
        descriptors,
        notes,
        vmcoreinfo,
        source,
    )


def _read_bitmap(
    read: Read, at: int, length: int, max_frame: int, size: int, source: str
) -> bytes:
    # Half of the blocks are the bitmap of the machine, half that of the dump.
    half = length // 2
    if not 0 < half <= _MAX_BITMAP:
        raise FormatError(
            f"{source}: bitmap_blocks",
            f"{length} bytes of bitmaps, expected at most {2 * _MAX_BITMAP}",
        )
    bits = read_whole(read, at + half, half, size, source, "the page bitmap")
    if max_frame > half * 8:
        raise FormatError(
            f"{source}: max_mapnr", f"{max_frame} pages, the bitmap has {half * 8}"
        )
    kept = bytearray(bits[: (max_frame + 7) // 8])
    if max_frame & 7:
        kept[-1] &= (1 << (max_frame & 7)) - 1
    return bytes(kept)
