# SPDX-License-Identifier: GPL-2.0-or-later
"""The core image: an ELF core that crash, gdb and drgn open directly."""

from kmemdump.coreimage.manifest import (
    AreaRecord,
    Death,
    KernelRecord,
    Manifest,
    QuestionRecord,
    RegionRecord,
)
from kmemdump.coreimage.packed import PackedMemory, pack_memory
from kmemdump.coreimage.read import CoreImage, read_core
from kmemdump.coreimage.verify import overlaps_much, verify
from kmemdump.coreimage.write import CoreContents, Packed, write_core

__all__ = [
    "AreaRecord",
    "CoreContents",
    "CoreImage",
    "Death",
    "KernelRecord",
    "Manifest",
    "Packed",
    "PackedMemory",
    "QuestionRecord",
    "RegionRecord",
    "overlaps_much",
    "pack_memory",
    "read_core",
    "verify",
    "write_core",
]
