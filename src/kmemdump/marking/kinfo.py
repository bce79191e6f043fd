# SPDX-License-Identifier: GPL-2.0-or-later
"""Mark a kernel with Android's ``debug_kinfo``, for dumps of all RAM."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kmemdump.backends.kinfo import KinfoBackend, erase_kinfo
from kmemdump.firmware.discovery import find_kinfo_range
from kmemdump.formats.kinfo import KinfoLayout, fields_of
from kmemdump.kernel.attach import attach
from kmemdump.kernel.kinfo import kinfo_facts, kinfo_regions
from kmemdump.marking.firmware_table import check_reserved
from kmemdump.marking.lock import lock_table, table_name
from kmemdump.marking.registry import Refusal, Registry
from kmemdump.memory.ranges import Range, Region
from kmemdump.targets import Target
from kmemdump.targets.live import LiveTarget
from kmemdump.targets.writable import check_writable, open_writable

__all__ = ["KinfoOptions", "KinfoResult", "mark_kinfo", "unmark_kinfo"]


@dataclass(frozen=True, slots=True)
class KinfoOptions:
    """Where a machine's kinfo is."""

    range: Range | None = None
    """By default, the device tree's ``google,debug-kinfo`` node."""
    device_tree: Path | None = None
    """The machine's DTB; by default, it is looked for in the machine's memory."""
    lock_folder: Path | None = None
    """For a lock that lets one process write at a time; ``None`` takes no lock."""


@dataclass(frozen=True, slots=True)
class KinfoResult:
    """The contents of a kinfo."""

    range: Range
    """Where it is."""
    layout: KinfoLayout
    held: tuple[Region, ...]
    """The kernel's tables whose addresses it has."""
    refused: tuple[Refusal, ...]
    missing: tuple[str, ...]
    """Tables that have a field in the layout, but were not found."""


def mark_kinfo(
    target: Target,
    layout: KinfoLayout = KinfoLayout.SERIES,
    options: KinfoOptions | None = None,
    *,
    vmlinux: str | os.PathLike[str] | None = None,
) -> KinfoResult:
    """
    Write a kinfo into a machine's reserved memory.

    The addresses of the kernel's own tables in it never change; one call is enough.

    :param target: This machine, or a VM that has its RAM in a shared file.
    :param vmlinux: The kernel's debug file, to be used instead of kallsyms and BTF.
    :raises UsageError: If the kernel uses the memory that is to be written.
    :raises UnsupportedError: If the target cannot be written, another process writes to
        the kinfo, or the kernel lacks something that a kinfo holds.
    :raises KmemdumpError: If there is no place for it, or no kernel.
    """
    options = options or KinfoOptions()
    with _locked(target, options) as place:
        kernel = attach(target, vmlinux=None if vmlinux is None else Path(vmlinux))
        check_reserved(kernel, [place])
        with closing(open_writable(target, [place])) as memory:
            registry = Registry(target.memory.ranges)
            registry.attach(KinfoBackend(memory, place, kinfo_facts(kernel, layout)))
            update = registry.update(kinfo_regions(kernel, layout))
    found = {region.name for region in update.added}
    missing = set(fields_of(layout)) - found
    # A kernel has one of these bases, or since v7.0 none.
    if "kallsyms_offsets" in found:
        missing -= {"kallsyms_addresses", "kallsyms_relative_base"}
    return KinfoResult(
        place, layout, update.added, update.refused, tuple(sorted(missing))
    )


def unmark_kinfo(target: Target, options: KinfoOptions | None = None) -> None:
    """
    Leave nothing in a machine's memory that a reader would take for a kinfo.

    :raises KmemdumpError: If the place is not known, or cannot be written.
    """
    with (
        _locked(target, options or KinfoOptions()) as place,
        closing(open_writable(target, [place])) as memory,
    ):
        erase_kinfo(memory, place)


@contextmanager
def _locked(target: Target, options: KinfoOptions) -> Iterator[Range]:
    """Find the place of the kinfo, and lock it."""
    check_writable(target)
    place = options.range
    if place is None:
        memory = None if isinstance(target, LiveTarget) else target.memory
        place = find_kinfo_range(memory, target.name, options.device_tree)
    name = table_name(target.name, KinfoBackend.name, place.start)
    with lock_table(options.lock_folder, name):
        yield place
