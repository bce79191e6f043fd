# SPDX-License-Identifier: GPL-2.0-or-later
"""What the names of sources and of their files tell, and what is in a folder."""

from __future__ import annotations

import os
import stat

from kmemdump.errors import TargetError
from kmemdump.text import printable

__all__ = ["MAX_FILES", "is_device", "is_piece", "label_of", "list_files"]

MAX_FILES = 1024
"""More regions than any firmware has room for."""
_MAX_ENTRIES = 100_000


def is_device(spec: str) -> bool:
    """Tell whether a source is a device that has to be downloaded first."""
    kind, colon, _ = spec.partition(":")
    return kind == "usb" or (kind == "sahara" and bool(colon))


def is_piece(file_name: str) -> bool:
    """Tell whether a file in a folder is one that firmware made: ``md_Klog.BIN``."""
    return file_name.startswith("md_") and file_name.lower().endswith(".bin")


def label_of(file_name: str) -> str:
    """Return the name of a region from the name of its file: ``md_Klog.BIN``."""
    label = file_name
    if label.lower().endswith(".bin"):
        label = label[:-4]
    return printable(label.removeprefix("md_"))


def list_files(folder: str | os.PathLike[str]) -> dict[str, int]:
    """
    Return the sizes of the regular files in a folder, in bytes.

    :raises TargetError: If it cannot be listed.
    """
    sizes = {}
    try:
        with os.scandir(folder) as entries:
            for i, entry in enumerate(entries):
                if i == _MAX_ENTRIES:
                    raise TargetError(f"{folder}: more than {_MAX_ENTRIES} files")
                status = entry.stat() if not entry.is_symlink() else None
                if status is not None and stat.S_ISREG(status.st_mode):
                    sizes[entry.name] = status.st_size
    except OSError as error:
        raise TargetError(f"{folder}: {error.strerror}") from error
    return sizes
