# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a user keeps what core images of one kernel build have in common."""

from __future__ import annotations

from collections.abc import Mapping

from kmemdump.kernel.build_cache import BuildCache
from kmemdump.user_folders import user_folder

__all__ = ["user_builds"]


def user_builds(environ: Mapping[str, str]) -> BuildCache:
    """Return the cache of this user; nothing is made yet."""
    return BuildCache(user_folder(environ, "CACHE") / "builds")
