# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a user keeps what core images of one kernel build have in common."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from kmemdump.errors import UnsupportedError
from kmemdump.kernel.build_cache import BuildCache
from kmemdump.opening import was_sealed
from kmemdump.sealing.memory import is_in_memory
from kmemdump.targets import Target
from kmemdump.user_folders import user_folder

__all__ = ["user_builds"]


def user_builds(environ: Mapping[str, str], target: Target) -> BuildCache | None:
    """
    Return the cache of this user, if there is a place for one; nothing is made yet.

    :param target: What is opened. Of what is sealed, nothing is kept on a disk.
    """
    try:
        folder = user_folder(environ, "CACHE") / "builds"
    except UnsupportedError:
        return None
    if was_sealed(target) and not is_in_memory(folder):
        return None
    return _of_folder(folder)


@cache
def _of_folder(folder: Path) -> BuildCache:
    """Return the one of this process: it keeps a few builds in memory."""
    return BuildCache(folder)
