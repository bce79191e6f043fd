# SPDX-License-Identifier: GPL-2.0-or-later
"""
A phone whose kernel has died: a log, some variables, and what its firmware leaves.

The log's ring is laid out here by hand, with its own offsets, which only VMCOREINFO
has, as for any kernel that is not known yet.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rigs.machine import FOREIGN, FakeMachine
from rigs.writers import put
from rigs.writers.elfheader import write_downstream, write_series
from rigs.writers.minidump import DONE, NR, VALI, write_regions, write_toc
from rigs.writers.rawdump import Sect, write_rawdump

IMAGE = 0xFFFF800080000000
PHYSICAL = 0x80280000
"""Where the image is; all memory of this phone is above."""
LINEAR = 0xFFFF000000000000
DYNAMIC = 0x80390000
"""Address of an allocated log buffer."""

OFFSETS = {
    "printk_ringbuffer.desc_ring": 0,
    "printk_ringbuffer.text_data_ring": 56,
    "prb_desc_ring.count_bits": 8,
    "prb_desc_ring.descs": 16,
    "prb_desc_ring.infos": 24,
    "prb_desc_ring.head_id": 32,
    "prb_desc_ring.tail_id": 40,
    "prb_data_ring.size_bits": 0,
    "prb_data_ring.data": 8,
    "prb_desc.state_var": 0,
    "prb_desc.text_blk_lpos": 8,
    "printk_info.seq": 0,
    "printk_info.ts_nsec": 8,
    "printk_info.text_len": 16,
    "printk_info.caller_id": 20,
}
SIZES = {"prb_desc": 24, "printk_info": 88}
MESSAGES = ["Booting Linux", "a longer message than the others", "", "Kernel panic"]


@dataclass
class Row:
    """A region as the kernel registered it."""

    name: str
    id: int
    address: int
    data: bytes
    virtual: int = 0

    @property
    def padded(self) -> bytes:
        return self.data + bytes(-len(self.data) % 4)


def in_image(offset: int) -> dict[str, int]:
    return {"address": PHYSICAL + offset, "virtual": IMAGE + offset}


def vmcoreinfo() -> bytes:
    lines = ["OSRELEASE=6.12.9-phone", "PAGESIZE=4096", "KERNELOFFSET=0"]
    symbols = {
        "swapper_pg_dir": 0x30000,
        "_stext": 0,
        "init_uts_ns": 0x1000,
        "prb": 0x2000,
        "printk_rb_static": 0x2100,
    }
    lines += [f"SYMBOL({name})={IMAGE + at:x}" for name, at in symbols.items()]
    lines += [f"OFFSET({name})={at}" for name, at in OFFSETS.items()]
    lines += [f"SIZE({name})={size}" for name, size in SIZES.items()]
    lines += [
        f"NUMBER(kimage_voffset)=0x{IMAGE - PHYSICAL:x}",
        f"NUMBER(PHYS_OFFSET)=0x{PHYSICAL:x}",
        "NUMBER(VA_BITS)=48",
        "NUMBER(TCR_EL1_T1SZ)=0x10",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def log_regions(*, dynamic: bool, wrapped: bool) -> list[Row]:
    """The regions that hold the log, of 8 descriptors and 256 bytes of text."""
    base, virtual = PHYSICAL + 0x3000, IMAGE + 0x3000
    if dynamic:
        base, virtual = DYNAMIC, LINEAR + DYNAMIC - PHYSICAL
    descs_at, infos_at, text_at = 0, 0x400, 0x1000
    descs, infos, text = bytearray(24 * 8), bytearray(88 * 8), bytearray(256)
    position = 256 - 24 if wrapped else 0  # The second message does not fit there.
    first = 5
    for i, message in enumerate(MESSAGES):
        current = first + i
        at, size = current % 8 * 24, 8 + len(message) + 7 & ~7
        begin = position
        if (position + size - 1) // 256 != position // 256:
            position = -(-position // 256) * 256  # Starts over.
        put(descs, at, 8, 2 << 62 | current)
        if message:
            start = position % 256
            put(text, start, 8, current)
            text[start + 8 : start + 8 + len(message)] = message.encode()
            position += size
            put(descs, at + 8, 8, begin, position)
        else:
            put(descs, at + 8, 8, 3, 3)
        info = current % 8 * 88
        put(infos, info, 8, current, 1_500_000_000 + i)
        put(infos, info + 16, 2, len(message))
    ring = bytearray(96)
    put(ring, 8, 4, 3)
    put(ring, 16, 8, virtual + descs_at, virtual + infos_at)
    put(ring, 32, 8, first + len(MESSAGES) - 1, first)
    put(ring, 56, 4, 8)
    put(ring, 64, 8, virtual + text_at)
    active = 0x2200 if dynamic else 0x2100
    pointer = struct.pack("<Q", IMAGE + active)
    rings = {0x2100: bytes(96), 0x2200: bytes(96), active: bytes(ring)}
    names = (
        ("new_log_", "new_desc", "new_info")
        if dynamic
        else (
            "__log_bu",
            "prb_desc",
            "prb_info",
        )
    )
    ids = (46, 44, 45) if dynamic else (25, 23, 24)
    rows = [
        Row("Kprintk_r", 20, data=rings[0x2100], **in_image(0x2100)),
        Row("Kprintk_r", 21, data=rings[0x2200], **in_image(0x2200)),
        Row("Kprb", 22, data=pointer, **in_image(0x2000)),
    ]
    places = (text_at, descs_at, infos_at)
    for name, id, at, data in zip(
        names, ids, places, (text, descs, infos), strict=True
    ):
        rows.append(Row(f"K{name}", id, base + at, bytes(data), virtual + at))
    return rows


LOG = "".join(f"[    1.500000] {message}\n" for message in MESSAGES)


@dataclass
class Phone:
    """The regions, and the headers that describe them."""

    rows: list[Row] = field(default_factory=list)
    downstream: bool = False
    scrambled: bool = False
    """Whether the offsets in the ELF header are wrong."""
    header: bool = True

    @classmethod
    def with_log(
        cls, *, dynamic: bool = False, wrapped: bool = False, **settings: bool
    ) -> "Phone":
        others = [
            Row("Klinux_ba", 11, data=b"Linux version 6.12.9\n\0", **in_image(0x4100)),
            Row("Knr_threa", 12, data=b"\x07\0\0\0", **in_image(0x4200)),
            Row("Kjiffies_", 10, data=bytes(8), **in_image(0x4208)),
        ]
        log = log_regions(dynamic=dynamic, wrapped=wrapped)
        return cls(sorted([*others, *log], key=lambda row: row.id), **settings)

    @property
    def info(self) -> Row:
        text = vmcoreinfo()
        return Row("Kvmcorein", 2, 0x80380000, text + bytes(-len(text) % 4))

    @property
    def elf(self) -> Row:
        loads = [
            (row.name, row.virtual, row.address, len(row.data)) for row in self.rows
        ]
        if self.downstream:
            return Row("KELF_HDR", 0, 0x80370000, write_downstream(loads))
        data = bytearray(write_series(loads, vmcoreinfo()))
        if self.scrambled:
            for i in range(len(loads)):
                put(data, 120 + 56 * i + 8, 8, 1)
        return Row("KELF", 1, 0x80370000, bytes(data))

    @property
    def table(self) -> list[Row]:
        """All rows that firmware dumps, in the table's order."""
        return [*([self.elf] if self.header else []), self.info, *self.rows]

    @property
    def expected(self) -> dict[int, bytes]:
        """Address to memory, without the regions that describe others."""
        return {row.address: row.data for row in self.rows}

    def folder(self, path: Path, *, listed: bool = False, ids: bool = True) -> Path:
        """A folder of files, with or without a list of addresses."""
        path.mkdir()
        lines = ""
        for row in self.table:
            name = f"md_{row.name}{row.id if ids else ''}.BIN"
            (path / name).write_bytes(row.padded)
            lines += f"1 0x{row.address:016x}\t{len(row.padded):016d}"
            lines += f"\t{name:>20}\t{name}\r\n"
        if listed:
            (path / "dump_info.txt").write_text(lines)
        return path

    def image(self, path: Path, rows: Sequence[Row] | None = None) -> Path:
        """A rawdump image."""
        sections = [Sect("OCIMEM.BIN", b"o" * 100, 0x14680000)]
        for row in self.table if rows is None else rows:
            sections.append(Sect(f"md_{row.name}.BIN", row.padded, row.address))
        path.write_bytes(write_rawdump(sections))
        return path

    def machine(self) -> FakeMachine:
        """The machine's memory itself, with the table in it."""
        toc = write_toc(
            array=FOREIGN, count=len(self.table), initialized=1, encryption=(DONE, NR)
        )
        machine = FakeMachine(toc)
        rows = [
            (row.name, row.id, VALI, row.address, len(row.padded)) for row in self.table
        ]
        machine.put(FOREIGN, write_regions(rows))
        for row in self.table:
            machine.put(row.address, row.padded)
        return machine
