# SPDX-License-Identifier: GPL-2.0-or-later
"""The ELF header region in both forms, as the kernels' documentation lays it out."""

from collections.abc import Sequence

from rigs.writers import put, put_text

Load = tuple[str, int, int, int]
"""Name, virtual address, physical address, size."""


def _align4(size: int) -> int:
    return size + 3 & ~3


def _ehdr(data: bytearray, machine: int) -> None:
    data[:8] = b"\x7fELF\x02\x01\x01\0"
    put(data, 16, 2, 4, machine)
    put(data, 20, 4, 1)
    put(data, 52, 2, 64, 56)


def _phdr(
    data: bytearray, at: int, type_: int, offset: int, load: Load, flags: int = 6
) -> None:
    put(data, at, 4, type_, flags)
    put(data, at + 8, 8, offset, load[1], load[2], load[3], load[3], 0)


def write_series(
    loads: Sequence[Load],
    vmcoreinfo: bytes,
    *,
    machine: int = 183,
    slots: int = 201,
    prstatus: Sequence[bytes] = (bytes(392),),
) -> bytes:
    """Region 1 of the kernel's series; region 2 is *vmcoreinfo*, padded to 4."""
    text = _align4(len(vmcoreinfo))
    notes = bytearray()
    for status in prstatus:
        notes += (5).to_bytes(4, "little") + len(status).to_bytes(4, "little")
        notes += (1).to_bytes(4, "little") + b"CORE\0\0\0\0" + status
    notes += bytes.fromhex("05000000 88000000 03000000") + b"CORE\0\0\0\0" + bytes(136)
    notes += (11).to_bytes(4, "little") + text.to_bytes(4, "little") + bytes(4)
    notes += b"VMCOREINFO\0\0"
    start = _align4(64 + 392 + 136 + 11 + text + 56 * slots)
    data = bytearray(start)
    _ehdr(data, machine)
    put(data, 32, 8, 64)
    put(data, 56, 2, 1 + len(loads))
    _phdr(data, 64, 4, start, ("", 0, 0, len(notes) + text), 0)
    offset = start + len(notes) + text
    for i, load in enumerate(loads):
        size = _align4(load[3])
        _phdr(data, 120 + 56 * i, 1, offset, (load[0], load[1], load[2], size))
        offset += size
    return bytes(data + notes)


def write_downstream(
    loads: Sequence[Load],
    *,
    machine: int = 183,
    rows: int = 201,
    banner: bytes = b"Linux version 5.15\n\0",
    sections_only: Sequence[Load] = (),
) -> bytes:
    """The region of Android's kernels, always row 0 of their table."""
    sections, headers = 64, 64 + 64 * rows
    strings = headers + 56 * rows
    banner_at = strings + 16 * rows
    # The driver's length counts four section and four program headers more.
    length = _align4(banner_at + 4 * (64 + 56) + len(banner))
    data = bytearray(length)
    _ehdr(data, machine)
    put(data, 32, 8, headers, sections)
    put(data, 56, 2, 1 + len(loads), 64, 4 + len(loads) + len(sections_only), 1)
    table = b"\0"

    def section(i: int, name: str, type_: int, at: int, offset: int, size: int) -> None:
        nonlocal table
        put(data, sections + 64 * i, 4, len(table), type_)
        put(data, sections + 64 * i + 8, 8, 1, at, offset, size)
        table += name.encode() + b"\0"

    section(1, "STR_TBL", 3, 0, strings, 16 * rows)
    section(2, "minidump_table", 1, 0xFFFFFFC008000000, 0, 0)
    section(3, "linux_banner", 1, 0xFFFFFFC009000000, banner_at, len(banner))
    data[banner_at : banner_at + len(banner)] = banner
    place = ("", 0xFFFFFFC009000000, 0x89000000, len(banner))
    _phdr(data, headers, 1, banner_at, place)
    offset = length
    for i, load in enumerate(loads):
        section(4 + i, load[0], 1, load[1], offset, load[3])
        _phdr(data, headers + 56 * (1 + i), 1, offset, load)
        offset += load[3]
    for i, load in enumerate(sections_only):
        section(4 + len(loads) + i, load[0], 1, load[1], offset, load[3])
        offset += load[3]
    put_text(data, strings, 16 * rows, table)
    return bytes(data)
