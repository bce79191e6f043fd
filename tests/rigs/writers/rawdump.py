# SPDX-License-Identifier: GPL-2.0-or-later
"""``Raw_Dmp!`` images."""

from collections.abc import Sequence
from dataclasses import dataclass

from rigs.writers import put, put_text


@dataclass
class Sect:
    """A section; ``type`` 1 is DDR, 3 the vendor's."""

    name: str
    data: bytes
    address: int = 0
    type: int = 3
    flags: int = 1


def write_rawdump(
    sections: Sequence[Sect], *, flags: int = 1, magic: bytes = b"Raw_Dmp!"
) -> bytes:
    """An image; its sections are back to back, as Qualcomm's are."""
    offset = 56 + 64 * len(sections)
    head = bytearray(offset)
    body = b"".join(section.data for section in sections)
    put_text(head, 0, 8, magic)
    put(head, 8, 4, 0x1000, flags)
    put(head, 36, 8, offset + len(body), 0)
    put(head, 52, 4, len(sections))
    for i, section in enumerate(sections):
        at = 56 + 64 * i
        put(head, at, 4, section.flags, 0x1000, section.type)
        put(head, at + 12, 8, offset, len(section.data), section.address)
        put_text(head, at + 44, 20, section.name)
        offset += len(section.data)
    return bytes(head) + body
