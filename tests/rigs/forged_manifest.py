# SPDX-License-Identifier: GPL-2.0-or-later
"""Core images whose manifest says what no program of ours writes."""

import struct
from collections.abc import Callable
from pathlib import Path

from kmemdump.coreimage import AreaRecord, Manifest, RegionRecord, read_core
from kmemdump.formats.elf import PT_NOTE, pack_note
from kmemdump.formats.notes import NoteType

__all__ = ["COUNT", "FORGERIES", "forge"]

COUNT = 100_000


def _regions(manifest: Manifest) -> Manifest:
    """Each has all memory, and claims none of it."""
    regions = [RegionRecord(i, f"r{i}", 0, 1 << 62, 0, 0) for i in range(COUNT)]
    return manifest._replace(regions=regions)


def _areas(manifest: Manifest) -> Manifest:
    areas = [AreaRecord(f"a{i}", False, "lost", 1) for i in range(COUNT)]
    return manifest._replace(areas=areas)


FORGERIES: dict[str, Callable[[Manifest], Manifest]] = {
    "regions": _regions,
    "areas": _areas,
}
"""By what they have a hundred thousand of."""


def forge(core: Path, change: Callable[[Manifest], Manifest]) -> bytes:
    """Return a core image with another manifest; its notes lie at its end."""
    with read_core(core) as image:
        assert image.manifest is not None
        manifest = change(image.manifest).to_json()
        notes = b"".join(
            pack_note(
                it.name, it.type, manifest if it.type == NoteType.MANIFEST else it.desc
            )
            for it in image.notes
        )
    data = bytearray(core.read_bytes())
    (headers,) = struct.unpack_from("<Q", data, 32)
    (count,) = struct.unpack_from("<H", data, 56)
    for at in range(headers, headers + 56 * count, 56):
        if struct.unpack_from("<I", data, at) == (PT_NOTE,):
            struct.pack_into("<Q", data, at + 8, len(data))
            struct.pack_into("<QQ", data, at + 32, len(notes), len(notes))
    return bytes(data) + notes
