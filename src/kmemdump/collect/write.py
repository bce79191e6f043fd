# SPDX-License-Identifier: GPL-2.0-or-later
"""From a collected dump to a core image."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from kmemdump.collect.early import EarlyCopy
from kmemdump.coreimage import (
    CoreContents,
    KernelRecord,
    Manifest,
    fill_core,
    write_core,
)
from kmemdump.errors import KmemdumpError
from kmemdump.firmware_dumps.fragments import FileStore, Placement
from kmemdump.firmware_dumps.target import DumpTarget
from kmemdump.memory.physical import Extent
from kmemdump.memory.ranges import Range, Region
from kmemdump.version import VERSION

__all__ = ["finish_collected", "write_collected"]

logger = logging.getLogger(__name__)

_WORD = 4
"""Firmware rounds sizes up to this, in bytes."""
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
    held = _Held.of(copy, target.collected.memory.placements)
    if held is None:
        # What is left out must not be in the file.
        logger.info("not all files belong in the core image: copying again")
        copy.stop()
    return fill_core(copy.output, _contents(target)._replace(held=held))


class _Held(NamedTuple):
    """Files that are being copied, as parts of the memory."""

    copy: EarlyCopy
    names: dict[Extent, str]

    @classmethod
    def of(cls, copy: EarlyCopy, placements: Iterable[Placement]) -> _Held | None:
        """Return the files' extents; ``None`` if not all of them are wanted, whole."""
        names = {}
        for item in placements:
            if isinstance(item.store, FileStore) and not item.offset:
                name = os.path.basename(item.store.path)
                offset, size = copy.places.get(name, (0, 0))
                if size == item.store.size and size - item.size < _WORD:
                    names[Extent(item.address, item.size, offset)] = name
        return cls(copy, names) if len(names) == len(copy.places) else None

    @property
    def extents(self) -> Iterable[Extent]:
        return self.names

    def wait(self) -> dict[Extent, int | None] | None:
        checksums = self.copy.wait()
        if checksums is None:
            logger.info("copying files early went wrong: copying again")
            return None
        sizes = {name: size for name, (_, size) in self.copy.places.items()}
        # Of a file with padding, nobody has summed up what is the region's.
        return {
            extent: checksums[name] if extent.size == sizes[name] else None
            for extent, name in self.names.items()
        }


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
