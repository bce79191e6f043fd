# SPDX-License-Identifier: GPL-2.0-or-later
"""The copier follows a CPU's stack pointer through any page tables of aarch64."""

import struct

import pytest

from kmemdump.backends.elf_header_region import Description
from kmemdump.backends.kdump import KdumpBackend
from kmemdump.collect.source import Options, open_source
from kmemdump.marking.registry import Registry
from kmemdump.memory.ranges import Range
from rigs.copier import LIST, Ram, run_copier
from rigs.synthetic import elf_core, note, vmcoreinfo_note

AARCH64, ROOT, VOFFSET = 183, 0x40000000, 0xFFFF800040000000
TABLE, PAGE = 3, 3  # PMD_TYPE_TABLE and PTE_TYPE_PAGE
LAYOUTS = [
    # VA_BITS, TCR_EL1.T1SZ; then of each level PGDIR_SHIFT, PUD_SHIFT, … with
    # PTRS_PER_PGD, PTRS_PER_PUD, …, of pgtable-hwdef.h.
    (4, 39, 25, ((30, 512), (21, 512), (12, 512))),
    (4, 48, 16, ((39, 512), (30, 512), (21, 512), (12, 512))),
    (4, 52, 12, ((48, 16), (39, 512), (30, 512), (21, 512), (12, 512))),
    # A CPU without 52 bits: P4Ds are folded at boot, pgtable_l5_enabled().
    (4, 52, 16, ((39, 512), (30, 512), (21, 512), (12, 512))),
    (16, 36, 28, ((25, 2048), (14, 2048))),
    (16, 47, 17, ((36, 2048), (25, 2048), (14, 2048))),
    (16, 48, 16, ((47, 2), (36, 2048), (25, 2048), (14, 2048))),
    (16, 52, 12, ((47, 32), (36, 2048), (25, 2048), (14, 2048))),
    (16, 52, 17, ((36, 2048), (25, 2048), (14, 2048))),
    (64, 42, 22, ((29, 8192), (16, 8192))),
    (64, 48, 16, ((42, 64), (29, 8192), (16, 8192))),
    (64, 52, 12, ((42, 1024), (29, 8192), (16, 8192))),
    # The same CPU: PTRS_PER_PGD is the same, and TTBR1 has an offset.
    (64, 52, 16, ((42, 1024), (29, 8192), (16, 8192))),
]


def entry(physical: int, page_kib: int, kind: int) -> int:
    """Return an entry; ``__phys_to_pte_val()`` of pgtable.h, with 52 bits."""
    low, top = physical & (1 << 48) - 1, physical >> 48
    if page_kib == 64:
        return low | top << 12 | kind
    return low | (top & 3) << 48 | top >> 2 << 8 | kind


def write_dump(path, layout, physical: int) -> tuple[int, int]:
    """Write a vmcore with a CPU's stack; return its virtual address and its size."""
    page_kib, va_bits, t1sz, levels = layout
    size = page_kib << 10
    stack = 2**64 - (1 << min(64 - t1sz, 48) - 1) + 0x80010000
    info = (
        f"OSRELEASE=6.12.0\nPAGESIZE={size}\nNUMBER(VA_BITS)={va_bits}\n"
        f"NUMBER(TCR_EL1_T1SZ)={t1sz:#x}\nNUMBER(kimage_voffset)={VOFFSET:#x}\n"
        f"SYMBOL(swapper_pg_dir)={ROOT + VOFFSET:x}\n"
    ).encode()
    tables = bytearray(len(levels) << 16)
    for i, (shift, entries) in enumerate(levels):
        last = i == len(levels) - 1
        below = physical if last else ROOT + (i + 1 << 16)
        at = (i << 16) + (stack >> shift) % entries * 8
        kind = PAGE if last else TABLE
        struct.pack_into("<Q", tables, at, entry(below, page_kib, kind))
    ram = Ram()
    registry = Registry(description=Description(AARCH64, info))
    registry.attach(KdumpBackend(ram, LIST))
    registry.register("one", LIST.end, 16)
    # struct elf_prstatus: sp is the 32nd register.
    status = bytearray(392)
    struct.pack_into("<Q", status, 112 + 31 * 8, stack + 64)
    memory = [
        (LIST.start, bytes(ram.data)),
        (ROOT, bytes(tables)),
        (physical, b"stack".ljust(size, b"s")),
    ]
    notes = note(b"CORE", 1, bytes(status)) + vmcoreinfo_note(info)
    path.write_bytes(elf_core(memory, notes, AARCH64))
    return stack, size


CASES = [
    *((layout, 0x48880000) for layout in LAYOUTS),
    # Such kernels have memory above 48 bits, too.
    *((it, 0xD000088880000) for it in LAYOUTS if it[0] == 64 and it[1] == 52),
    *((it, 0xD000088880000) for it in LAYOUTS if it[0] != 64 and it[2] == 12),
]


@pytest.mark.parametrize(
    ("layout", "physical"),
    CASES,
    ids=[f"{it[0]}k-{it[1]}-{it[2]}-{at:x}" for it, at in CASES],
)
def test_finds_the_stack(copier, tmp_path, layout, physical):
    vmcore, out = tmp_path / "vmcore", tmp_path / "out"
    stack, size = write_dump(vmcore, layout, physical)
    done = run_copier(copier, f"vmcore={vmcore}", f"to=as:{out}")
    assert (done.returncode, "2 regions" in done.stderr) == (0, True), done
    with open_source(str(out), Options()) as target:
        found = {it.virtual: it.range for it in target.dump.regions}
        assert found[stack] == Range(physical, size)
        assert target.memory.read(physical, size) == b"stack".ljust(size, b"s")
