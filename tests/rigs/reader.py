# SPDX-License-Identifier: GPL-2.0-or-later
"""A reader of core files that shares nothing with the package."""

import struct

# The lines that drgn requires; their length is not a multiple of 4.
VMCOREINFO = b"""OSRELEASE=6.1.0-test
PAGESIZE=4096
SYMBOL(swapper_pg_dir)=ffffffff82810000
KERNELOFFSET=0
NUMBER(pgtable_l5_enabled)=0
"""


def read_core(
    core: bytes,
) -> tuple[list[tuple[str, int, bytes]], list[tuple[int, int, bytes]]]:
    """Return notes and loads of an ELF core, without the package's code."""
    assert core[:16] == b"\x7fELF\x02\x01\x01" + bytes(9)
    kind, _, _, _, phoff, _, _, _, phentsize, phnum = struct.unpack_from(
        "<HHIQQQIHHH", core, 16
    )
    assert (kind, phentsize) == (4, 56)
    notes, loads = [], []
    for i in range(phnum):
        kind, flags, offset, vaddr, paddr, filesz, memsz, align = struct.unpack_from(
            "<IIQQQQQQ", core, phoff + i * 56
        )
        assert align == 0
        assert offset + filesz <= len(core)
        if kind == 1:
            assert (flags, memsz) == (6, filesz)
            loads.append((paddr, vaddr, core[offset : offset + filesz]))
            continue
        assert kind == 4
        end = offset + filesz
        while offset < end:
            namesz, descsz, type_ = struct.unpack_from("<III", core, offset)
            name = offset + 12
            desc = name + (namesz + 3) // 4 * 4
            notes.append(
                (
                    core[name : name + namesz - 1].decode(),
                    type_,
                    core[desc : desc + descsz],
                )
            )
            offset = desc + (descsz + 3) // 4 * 4
        assert offset == end
    return notes, loads
