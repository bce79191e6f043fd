# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a user keeps what core images of one kernel build have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kmemdump.kernel.build_cache import BuildCache

__all__ = ["user_builds"]


def user_builds(environ: Mapping[str, str]) -> BuildCache:
    """Return the cache of this user; nothing is made yet."""
    # As the XDG Base Directory Specification has it.
    cache = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return BuildCache(cache / "kmemdump" / "builds")
