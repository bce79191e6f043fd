# SPDX-License-Identifier: GPL-2.0-or-later
"""Keep what a process has in its memory off the disk."""

from __future__ import annotations

import ctypes
import os
import re
import resource
from collections.abc import Iterable
from pathlib import Path

from kmemdump.proc.mounts import read_mounts

__all__ = ["folder_in_memory", "is_in_memory", "keep_off_disk"]

_CAP_IPC_LOCK = 14  # include/uapi/linux/capability.h
_IN_MEMORY = ("tmpfs", "ramfs")
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4  # asm-generic/mman.h


def keep_off_disk() -> bool:
    """
    Keep the memory of this process out of core dumps, and of swap if that is allowed.

    :return: Whether it is kept out of swap.
    """
    # 1 and not 0: fs/coredump.c gives a dump to a program in core_pattern also with 0.
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == resource.RLIM_INFINITY or hard >= 1:
        resource.setrlimit(resource.RLIMIT_CORE, (1, hard))
    # Within a limit, memory that is allocated later could not be had.
    if not _may_lock_all():
        return False
    # On fault: what is mapped and never touched takes no memory.
    flags = _MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT
    return bool(ctypes.CDLL(None).mlockall(flags) == 0)


def is_in_memory(folder: Path) -> bool:
    """Return whether what is written into a folder stays in memory (tmpfs)."""
    # It may have to be made.
    there = next((it for it in (folder, *folder.parents) if it.is_dir()), folder)
    try:
        device = there.stat().st_dev
    except OSError:
        return False
    number = os.major(device), os.minor(device)
    kinds = (it.kind for it in read_mounts() if it.device == number)
    return next(kinds, None) in _IN_MEMORY


def folder_in_memory(places: Iterable[Path]) -> Path | None:
    """Return the first of some folders that is in memory, and can be written to."""
    for place in places:
        if (
            place.is_dir()
            and os.access(place, os.W_OK | os.X_OK)
            and is_in_memory(place)
        ):
            return place
    return None


def _may_lock_all() -> bool:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return True
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.M)
    return found is not None and bool(int(found[1], 16) >> _CAP_IPC_LOCK & 1)
