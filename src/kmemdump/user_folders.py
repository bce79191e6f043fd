# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a user's files are, as the XDG Base Directory Specification has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kmemdump.errors import UnsupportedError

__all__ = ["user_folder"]

_DEFAULTS = {"CACHE": "~/.cache", "CONFIG": "~/.config", "STATE": "~/.local/state"}


def user_folder(environ: Mapping[str, str], kind: str) -> Path:
    """
    Return the folder of kmemdump's files of a kind; it need not be there.

    :param kind: ``CACHE``, ``CONFIG`` or ``STATE``.
    :raises UnsupportedError: If this user has no home, as one of a container that is
        only a number.
    """
    variable = f"XDG_{kind}_HOME"
    place = environ.get(variable) or _DEFAULTS[kind]
    try:
        return Path(place).expanduser() / "kmemdump"
    except RuntimeError as error:
        raise UnsupportedError(
            f"{place}: this user has no home\nset {variable} to a folder, or HOME"
        ) from error
