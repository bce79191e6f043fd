# SPDX-License-Identifier: GPL-2.0-or-later
"""Relocatable ELF files with sections and nothing else, made of elf(5)."""

import struct
from collections.abc import Mapping

__all__ = ["elf_object"]

_ALLOC = 2


def elf_object(sections: Mapping[str, int], kind: int = 1) -> bytes:
    """
    Return a file whose sections are loaded.

    :param sections: Sizes by name; they have no contents in the file.
    :param kind: ``e_type``; 1 is ET_REL.
    """
    names = b"\0.shstrtab\0" + b"".join(name.encode() + b"\0" for name in sections)
    rows = [struct.pack("<IIQQQQIIQQ", *[0] * 10)]
    place = 11
    for name, size in sections.items():
        row = (place, 8, _ALLOC, 0, 64, size, 0, 0, 1, 0)  # SHT_NOBITS
        rows.append(struct.pack("<IIQQQQIIQQ", *row))
        place += len(name.encode()) + 1
    row = (1, 3, 0, 0, 64, len(names), 0, 0, 1, 0)  # SHT_STRTAB
    rows.append(struct.pack("<IIQQQQIIQQ", *row))
    # fmt: off
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", kind, 62, 1, 0, 0, 64 + len(names), 0,
        64, 0, 0, 64, len(rows), len(rows) - 1,
    )
    # fmt: on
    return header + names + b"".join(rows)
