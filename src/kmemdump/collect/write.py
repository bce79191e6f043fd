# SPDX-License-Identifier: GPL-2.0-or-later
"""From a collected dump to a core image."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime

from kmemdump.collect.early import Copied, EarlyCopy
from kmemdump.collect.pieces import FileStore, Placement
from kmemdump.collect.target import DumpTarget
from kmemdump.coreimage import (
    CoreContents,
    Held,
    KernelRecord,
    Manifest,
    fill_core,
    write_core,
)
from kmemdump.errors import KmemdumpError
from kmemdump.memory import Extent
from kmemdump.region import Range, Region
from kmemdump.version import VERSION

__all__ = ["finish_collected", "write_collected"]

logger = logging.getLogger(__name__)

_FIRST_ID = 3  # As if registered: 1 and 2 describe the dump.


def write_collected(path: str | os.PathLike[str], target: DumpTarget) -> list[Range]:
    """
    Write the core image of a collected dump.

    :return: Physical memory that should be there and is not.
    :raises KmemdumpError: If *path* cannot be written.
    """
    return write_core(path, _contents(target))


def finish_collected(copy: EarlyCopy, target: DumpTarget) -> list[Range]:
    """
    Write the core image of a dump whose files are being copied into it.

    :return: As of :func:`write_collected`.
    :raises KmemdumpError: If it cannot be written.
    """
    contents = _contents(target)
    held = _held(copy.wait(), target)
    if copy.problem:
        logger.info("nothing was copied early: %s", copy.problem)
    return fill_core(copy.output, contents._replace(held=held))


def _held(copied: Mapping[str, Copied], target: DumpTarget) -> list[Held]:
    """
    Return what is in the core image already.

    :return: Nothing if something is that does not belong there, so that it is written
        anew: what is left out must not be in the file.
    """
    held = []
    for item in target.collected.memory.placements:
        found = _copied_for(item, copied)
        if found is not None:
            extent = Extent(item.address, item.size, found.offset)
            held.append(Held(extent, found.crc32 if item.size == found.size else None))
    if len(held) < len(copied):
        logger.info("what was copied early is not all needed: copying again")
        return []
    return held


def _copied_for(item: Placement, copied: Mapping[str, Copied]) -> Copied | None:
    """Return what was copied if it is all of *item*, and but for padding no more."""
    store = item.store
    if not isinstance(store, FileStore) or item.offset or store.offset:
        return None
    found = copied.get(store.path)
    if found is None or found.size != store.size or item.size + 3 < found.size:
        return None
    return found


def _contents(target: DumpTarget) -> CoreContents:
    collected = target.collected
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
        for i, item in enumerate(collected.regions)
    ]
    manifest = Manifest(
        tool=f"kmemdump {VERSION}",
        time=datetime.now(UTC),
        kernel=kernel,
        backend=collected.backend,
        marked_at=_time(collected.marked),
    )
    return CoreContents(
        machine=target.machine,
        memory=target.memory,
        regions=regions,
        manifest=manifest,
        prstatus=target.registers(),
        vmcoreinfo=text,
        aliases=target.aliases,
        share_zeros=False,  # A region is chosen; few pages of it are nothing but zeros.
    )


def _time(seconds: int | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None  # No year that there is: the dump is damaged.
