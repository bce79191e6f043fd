# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes a small core image that has one of everything."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kmemdump.coreimage import (
    AreaRecord,
    CoreContents,
    Death,
    KernelRecord,
    Manifest,
    Packed,
    QuestionRecord,
    pack_memory,
    write_core,
)
from kmemdump.memory.physical import PageMemory
from kmemdump.memory.ranges import Alias, Range, Region
from kmemdump.sealing import Seal
from rigs.writers.debug_info import write_debug_info

__all__ = ["BUILD_ID", "PAGE", "TIME", "VMCOREINFO", "write"]

PAGE = 4096
TIME = datetime(2025, 4, 22, 11, 31, 5, tzinfo=UTC)
BUILD_ID = "ab" * 20
VMCOREINFO = f"""\
OSRELEASE=6.1.0-test
BUILD-ID={BUILD_ID}
PAGESIZE=4096
KERNELOFFSET=13c00000
SYMBOL(_stext)=ffffffff94c00000
SYMBOL(init_uts_ns)=ffffffff94c00000
NUMBER(phys_base)=0
"""


def write(
    path: Path,
    *,
    areas: Sequence[str] = ("kmsg", "crash"),
    reason: str = "",
    marked: bool = True,
    packed: bool = True,
    release: str = "6.1.0-test",
    time: datetime = TIME,
    death: Death | None = None,
    seal: Seal | None = None,
) -> Path:
    """Write a core image of three pages, each full of its own number."""
    pages = {number: bytes([number]) * PAGE for number in (1, 2, 5)}
    memory = PageMemory(pages)
    death = death or Death("frozen: CPU 1 served no interrupt for 10 s")
    manifest = Manifest(
        tool="kmemdump 0.1.0",
        time=time,
        kernel=KernelRecord(release, BUILD_ID, 62),
        backend="vm",
        cause=death.cause,
        death=death.kind,
        signature=death.signature,
        death_id=death.id,
        vm=death.vm,
        marked_at=time - timedelta(seconds=75) if marked else None,
        areas=[
            AreaRecord(
                name,
                complete=not reason,
                reason=reason,
                bytes=2 * PAGE,
                questions=[QuestionRecord("log", not reason, reason)],
            )
            for name in areas
        ],
    )
    contents = CoreContents(
        machine=62,
        memory=memory,
        regions=[
            Region(1, "kmsg@1000", PAGE, 2 * PAGE),
            Region(2, "crash@5000", 5 * PAGE, PAGE),
        ],
        manifest=manifest,
        prstatus=[bytes(336)] * 2,
        vmcoreinfo=VMCOREINFO.replace("6.1.0-test", release).encode(),
        direct=Alias(0xFFFF888000000000, 0, 1 << 30),
        packed=Packed(
            write_debug_info([(0xFFFFFFFF94C00000, "_stext", 0x12)]),
            pack_memory([Range(PAGE, PAGE)], pages[1]),
        )
        if packed
        else Packed(),
    )
    write_core(path, contents, seal)
    return path
