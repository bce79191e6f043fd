# SPDX-License-Identifier: GPL-2.0-or-later
"""Write the core image of what firmware left."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from kmemdump.coreimage import CoreContents, KernelRecord, Manifest, write_core
from kmemdump.errors import KmemdumpError
from kmemdump.firmware_dumps.target import DumpTarget
from kmemdump.memory.ranges import Range, Region
from kmemdump.sealing import Seal
from kmemdump.version import VERSION

__all__ = ["write_collected"]

_FIRST_ID = 3  # As for registered regions: 1 and 2 describe the dump.


def write_collected(
    path: str | os.PathLike[str], target: DumpTarget, seal: Seal | None = None
) -> list[Range]:
    """
    Write the core image of what firmware left.

    :param seal: Who can read it; by default, whoever can read the file.
    :return: Physical memory of the regions that the core image lacks.
    :raises KmemdumpError: If *path* cannot be written.
    """
    return write_core(path, _contents(target), seal)


def _contents(target: DumpTarget) -> CoreContents:
    dump = target.dump
    try:
        info = target.vmcoreinfo()
        kernel = KernelRecord(info.osrelease, info.build_id, target.machine)
        text = info.raw
    except KmemdumpError:
        kernel, text = KernelRecord("", None, target.machine), b""
    regions = [
        Region(
            _FIRST_ID + i, item.name, item.range.start, item.range.size, item.virtual
        )
        for i, item in enumerate(dump.regions)
    ]
    manifest = Manifest(
        tool=f"kmemdump {VERSION}",
        time=datetime.now(UTC),
        kernel=kernel,
        backend=dump.backend,
        marked_at=_time(dump.marked),
    )
    return CoreContents(
        machine=target.machine,
        memory=target.memory,
        regions=regions,
        manifest=manifest,
        prstatus=target.registers(),
        vmcoreinfo=text,
        aliases=target.aliases,
        share_zeros=False,  # Few pages of regions are all zeros.
    )


def _time(seconds: int | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None  # Not a valid time: the dump is damaged.
