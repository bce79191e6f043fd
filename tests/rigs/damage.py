# SPDX-License-Identifier: GPL-2.0-or-later
"""Damage core images as disks, firmware, dying kernels and attackers do."""

import random
import struct
from collections.abc import Sequence
from pathlib import Path

__all__ = ["damage", "kernel_pointers", "move_pointers", "spans"]


def spans(path: Path) -> dict[str, tuple[int, int]]:
    """Where the parts of a core image are in its file, found by their looks."""
    data = path.read_bytes()
    (phnum,) = struct.unpack_from("<H", data, 56)
    notes = 64 + 56 * phnum
    manifest = data.index(b"KMEMDUMP\0", notes) - 12
    info = data.index(b"VMCOREINFO\0", notes) - 12

    def end_of(start: int) -> int:
        size: int = struct.unpack_from("<I", data, start + 4)[0]
        return start + 24 + (size + 3) // 4 * 4

    found = {
        "header": (0, 64),
        "program headers": (64, notes),
        "registers": (notes, info),
        "VMCOREINFO": (info, manifest),
        "manifest": (manifest, end_of(manifest)),
        "memory": (end_of(manifest), len(data)),
    }
    at = end_of(manifest)
    while data[at + 12 : at + 21] == b"KMEMDUMP\0":
        (kind,) = struct.unpack_from("<I", data, at + 8)
        name = {0x4B4D4435: "debug info", 0x4B4D4432: "packed memory"}[kind]
        found[f"{name}'s table"] = (at, at + 200)
        found[name] = (at, end_of(at))
        at = end_of(at)
    found["memory"] = (at, len(data))
    return found


def damage(data: bytearray, start: int, end: int, chance: random.Random) -> None:
    """Do to a part of a file what disks, firmware and dying kernels do to it."""
    how = chance.choice(("flip", "ones", "zeros", "byte", "number", "move"))
    times = chance.choice((1, 1, 2, 8, 64)) * (50 if end - start > 1 << 20 else 1)
    for _ in range(times):
        at = chance.randrange(start, end)
        if how == "flip":
            data[at] ^= 1 << chance.randrange(8)
            continue
        number = chance.choice((1 << 63, 1 << 31, 0xFFFFFFFF, 0x7FFFFFFF, 1 << 40))
        other = chance.randrange(start, end)
        piece = {
            "ones": b"\xff" * chance.choice((1, 4, 8)),
            "zeros": bytes(8),
            "byte": chance.randbytes(1),
            "number": struct.pack("<Q", number),
            "move": bytes(data[other : other + 8]),  # Pointers that lead elsewhere.
        }[how]
        piece = piece[: end - at]
        data[at : at + len(piece)] = piece


def kernel_pointers(whole: bytes, start: int, end: int) -> list[int]:
    """Return where a part of a file has what are very likely kernel pointers."""
    first = start + -start % 8
    return [
        at for at in range(first, end - 7, 8) if whole[at + 6 : at + 8] == b"\xff\xff"
    ]


def move_pointers(
    data: bytearray, places: Sequence[int], chance: random.Random
) -> None:
    """Let pointers lead elsewhere: lists that loop, tables that hold themselves."""
    whole = bytes(data)
    for _ in range(chance.choice((20, 200, 2000))):
        here, there = chance.choice(places), chance.choice(places)
        data[here : here + 8] = whole[there : there + 8]
