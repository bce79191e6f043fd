# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a user's files are, as the XDG Base Directory Specification has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["user_folder"]

_DEFAULTS = {"CACHE": "~/.cache", "CONFIG": "~/.config", "STATE": "~/.local/state"}


def user_folder(environ: Mapping[str, str], kind: str) -> Path:
    """
    Return the folder of kmemdump's files of a kind; it need not be there.

    :param kind: ``CACHE``, ``CONFIG`` or ``STATE``.
    """
    place = environ.get(f"XDG_{kind}_HOME") or _DEFAULTS[kind]
    return Path(place).expanduser() / "kmemdump"
