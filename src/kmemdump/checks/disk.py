# SPDX-License-Identifier: GPL-2.0-or-later
"""Check the room on the disk for core images."""

from __future__ import annotations

import os
from pathlib import Path

from kmemdump.checks.point import Point, Rehearsal, missing, ok, warning
from kmemdump.checks.wanted import Wanted
from kmemdump.text import format_size

__all__ = ["check_disk"]

_ADVICE = "make room, change --max-bytes or --min-free, or want fewer with --deaths"


def check_disk(wanted: Wanted, core: Rehearsal | None) -> Point:
    """
    Check that there is room for as many core images as are wanted.

    :param core: The one that was rehearsed; ``None`` if there is none.
    """
    name, folder = "disk", wanted.folder
    if folder is None:
        return warning(
            name, "not checked", "name the folder for core images with -o DIR"
        )
    there = _existing(folder)
    try:
        if not there.is_dir():
            return missing(name, f"{there} is not a folder", "name another with -o DIR")
        if not os.access(there, os.W_OK | os.X_OK):
            return missing(
                name,
                f"{there}: no permission to write",
                "name another folder with -o DIR, or check as the user that watches",
            )
        status = os.statvfs(there)
    except OSError as error:
        return missing(name, f"{there}: {error.strerror}", "name another with -o DIR")
    free = status.f_bavail * status.f_frsize
    kept = wanted.limits.free(status.f_blocks * status.f_frsize)
    text = f"{_size(free)} free for {folder}, {_size(kept)} of it are kept free"
    if core is None:
        return ok(name, text) if free > kept else missing(name, text, _ADVICE)
    # While a core image is replaced by its second look, both are there.
    room = max((min(free - kept, wanted.limits.max_bytes)) // core.size - 1, 0)
    text = f"{text}: room for {room:,} core images, {wanted.deaths} wanted"
    if room < wanted.deaths:
        return missing(name, text, _ADVICE)
    if wanted.limits.keep < wanted.deaths:
        return missing(
            name, f"{text}; {wanted.limits.keep} of a VM are kept", "give --keep NUMBER"
        )
    return ok(name, text)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 100e6 else format_size(count)


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    path = folder.absolute()
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path
