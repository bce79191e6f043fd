# SPDX-License-Identifier: GPL-2.0-or-later
"""This machine's own busybox, for guests where Debian's cannot be downloaded."""

from __future__ import annotations

import shutil
from pathlib import Path

from kmemdump.errors import UnsupportedError
from kmemdump.installing import describe_install
from kmemdump.lab.shared_libraries import libraries

__all__ = ["find_busybox"]

_NAMES = ("busybox.static", "busybox-static", "busybox")


def find_busybox() -> Path:
    """
    Return a busybox of this machine that needs no libraries.

    :raises UnsupportedError: If there is none.
    """
    for name in _NAMES:
        found = shutil.which(name)
        if found is not None and not libraries([Path(found).resolve()]):
            return Path(found)
    raise UnsupportedError(
        "no statically linked busybox is installed, which the VM's programs are of\n"
        f"{describe_install('busybox')}"
    )
