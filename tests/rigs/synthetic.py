# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels and dumps made by hand, without the parsers' tables."""

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from kmemdump.memory.physical import FileMemory
from kmemdump.memory.ranges import Extent

PAGE = 4096
GIB = 1 << 30
RELEASE = "6.1.0-test"

UTS = 0x27F9B60
SWAPPER = 0x2610000
TEXT_MAP = 0xFFFFFFFF80000000
DIRECT_MAP = 0xFFFF888000000000


def vmcoreinfo(release: str = RELEASE, phys_base: int = 0, **lines: str) -> bytes:
    """Return the text of an x86-64 kernel's VMCOREINFO."""
    text = {
        "OSRELEASE": release,
        "BUILD-ID": "3b43fad5034874490492495d552c0af6a5fab235",
        "PAGESIZE": "4096",
        "SYMBOL(init_uts_ns)": f"{TEXT_MAP + UTS:x}",
        "OFFSET(uts_namespace.name)": "0",
        "SYMBOL(swapper_pg_dir)": f"{TEXT_MAP + SWAPPER:x}",
        "SYMBOL(_stext)": "ffffffff81000000",
        "SYMBOL(mem_section)": f"{DIRECT_MAP + 0x1234000:x}",
        "LENGTH(mem_section)": "2048",
        "SIZE(mem_section)": "16",
        "OFFSET(mem_section.section_mem_map)": "0",
        "NUMBER(SECTION_SIZE_BITS)": "27",
        "NUMBER(MAX_PHYSMEM_BITS)": "46",
        "NUMBER(phys_base)": str(phys_base),
        "NUMBER(pgtable_l5_enabled)": "0",
        "KERNELOFFSET": "0",
        **{key.replace("__", "(") + ")" * ("__" in key): v for key, v in lines.items()},
    }
    return "".join(f"{key}={value}\n" for key, value in text.items()).encode()


def note(name: bytes, type_: int, desc: bytes) -> bytes:
    padded = name + b"\0"
    head = struct.pack("<III", len(padded), len(desc), type_)
    return head + padded + bytes(-len(padded) % 4) + desc + bytes(-len(desc) % 4)


def vmcoreinfo_note(text: bytes) -> bytes:
    return note(b"VMCOREINFO", 0, text)


def uts(release: str = RELEASE) -> bytes:
    """Return a struct new_utsname."""
    fields = ("Linux", "host", release, "#1 SMP", "x86_64", "(none)")
    return b"".join(field.encode().ljust(65, b"\0") for field in fields)


def prstatus(cpu: int, size: int = 336) -> bytes:
    return struct.pack("<32xI", cpu + 1).ljust(size, b"\0")


def elf_core(
    segments: Iterable[tuple[int, bytes]],
    notes: bytes = b"",
    machine: int = 62,
    *,
    vaddr: int = 0,
) -> bytes:
    """Return an ELF core of (physical address, data) segments."""
    segments = list(segments)
    offset = 64 + 56 * (len(segments) + 1)
    headers = [struct.pack("<IIQQQQQQ", 4, 0, offset, 0, 0, len(notes), len(notes), 0)]
    body = notes
    for address, data in segments:
        headers.append(
            struct.pack(
                "<IIQQQQQQ",
                1,
                7,
                offset + len(body),
                vaddr,
                address,
                len(data),
                len(data),
                0,
            )
        )
        body += data
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = struct.pack(
        "<16sHHIQQQIHHHHHH",
        ident, 4, machine, 1, 0, 64, 0, 0, 64, 56, len(headers), 0, 0, 0,
    )  # fmt: skip
    return head + b"".join(headers) + body


ZLIB, LZO, SNAPPY, ZSTD = 1, 2, 4, 0x20


def compress(page: bytes, kind: int) -> bytes:
    """
    Compress a page; for all formats except zlib, its second half must be zeros.

    Those formats write 2049 literal bytes, the last of them zero, and its copies.
    """
    assert len(page) == PAGE
    if kind == ZLIB:
        return zlib.compress(page)
    if not kind:
        return page
    assert not any(page[2048:])
    literal = page[:2049]
    if kind == LZO:  # 2049 is 18 + 7 * 255 + 246, 2047 is 33 + 7 * 255 + 229.
        copies = b"\x20" + bytes(7) + b"\xe5\0\0"
        return bytes(8) + b"\xf6" + literal + copies + b"\x11\0\0"
    if kind == SNAPPY:
        copies = 31 * bytes([63 << 2 | 2, 1, 0]) + bytes([62 << 2 | 2, 1, 0])
        return b"\x80\x20" + struct.pack("<BH", 61 << 2, 2048) + literal + copies
    if kind == ZSTD:  # A raw block and one of a repeated byte.
        blocks = (2049 << 3).to_bytes(3, "little") + literal
        blocks += (1 | 1 << 1 | 2047 << 3).to_bytes(3, "little") + b"\0"
        return b"\x28\xb5\x2f\xfd\x60" + struct.pack("<H", PAGE - 256) + blocks
    raise ValueError(kind)


def kdump(
    pages: Mapping[int, bytes],
    *,
    kind: int = ZLIB,
    info: bytes = b"",
    notes: bytes = b"",
    machine: bytes = b"x86_64",
    version: int = 6,
    split: int = 0,
    max_frame: int | None = None,
    page_size: int = PAGE,
    status: int = 1,
) -> bytes:
    """
    Return a kdump-compressed dump of frames to pages.

    :param status: ``DUMP_DH_COMPRESSED_*``; 8 marks it incomplete.
    """
    max_frame = max_frame or max(pages, default=0) + 1
    half = -(-max_frame // 8 // PAGE) * PAGE or PAGE
    head = bytearray(PAGE)
    struct.pack_into("<8si", head, 0, b"KDUMP   ", version)
    struct.pack_into("65s", head, 12 + 4 * 65, machine)
    struct.pack_into(
        "<IiiII", head, 424, status, page_size, 1, 2 * half // PAGE, max_frame
    )
    extra = PAGE + 104
    sub = struct.pack(
        "<QiiQQQQQQQQQQQ",
        0, 0, split, 0, max_frame, extra, len(info), extra + len(info), len(notes),
        0, 0, 0, max_frame, max_frame,
    )  # fmt: skip
    sub = (sub + info + notes).ljust(PAGE, b"\0")
    assert len(sub) == PAGE, "the notes are too large for one block"
    bitmap = bytearray(half)
    for frame in pages:
        bitmap[frame // 8] |= 1 << frame % 8
    start = 2 * PAGE + 2 * half
    at = start + 24 * len(pages)
    descriptors, data = b"", b""
    for _, page in sorted(pages.items()):
        packed = compress(page, kind)
        flags = kind
        if kind == ZLIB and len(packed) >= PAGE:
            packed, flags = page, 0
        descriptors += struct.pack("<qIIQ", at + len(data), len(packed), flags, 0)
        data += packed
    return bytes(head) + sub + 2 * bytes(bitmap) + descriptors + data


def flat(pieces: Iterable[tuple[int, bytes]], *, end: bool = True) -> bytes:
    """Return a flattened file of (offset, data) records."""
    out = struct.pack(">16sqq", b"makedumpfile", 1, 1).ljust(4096, b"\0")
    for offset, data in pieces:
        out += struct.pack(">qq", offset, len(data)) + data
    return out + (struct.pack(">qq", -1, -1) if end else b"")


def lime(ranges: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(
        struct.pack("<4sIQQ8x", b"EMiL", 1, start, start + len(data) - 1) + data
        for start, data in ranges
    )


def write_sparse(path: Path, size: int, pieces: Iterable[tuple[int, bytes]]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    return path


def file_memory(
    path: Path, size: int, pieces: Iterable[tuple[int, bytes]]
) -> FileMemory:
    """Return physical memory from 0 on, in a sparse file."""
    write_sparse(path, size, pieces)
    return FileMemory(os.open(path, os.O_RDONLY), [Extent(0, size, 0)], "ram")


def page_tables(
    size: int, low: int, offset_of: Callable[[int], int], tables: int
) -> list[tuple[int, bytes]]:
    """
    Return (file offset, data) of a kernel's page table that maps all of RAM.

    Large pages; the part that firmware reserves at the end of low RAM is left out.

    :param low: Where low RAM ends.
    :param tables: Physical address for the tables below the first.
    """
    spans = [(0, min(low, size) - (16 << 20))]
    if size > low:
        spans.append((4 * GIB, 4 * GIB + size - low))
    pud_at = tables
    pgd = bytearray(PAGE)
    struct.pack_into("<Q", pgd, (DIRECT_MAP >> 39 & 511) * 8, pud_at | 0x63)
    pud = bytearray(PAGE)
    pieces = [(offset_of(SWAPPER), bytes(pgd))]
    next_table = tables + PAGE
    for start, end in spans:
        for gib in range(start // GIB, -(-end // GIB)):
            if (gib + 1) * GIB <= end:
                struct.pack_into("<Q", pud, gib * 8, gib * GIB | 0xE3)
                continue
            pmd = bytearray(PAGE)
            for i, address in enumerate(range(gib * GIB, end, 2 << 20)):
                struct.pack_into("<Q", pmd, i * 8, address | 0x80000000000000E3)
            struct.pack_into("<Q", pud, gib * 8, next_table | 0x63)
            pieces.append((offset_of(next_table), bytes(pmd)))
            next_table += PAGE
    pieces.append((offset_of(pud_at), bytes(pud)))
    return pieces
