# SPDX-License-Identifier: GPL-2.0-or-later
"""Build the crash kernel's copier for a guest; needs gcc."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from kmemdump.crash_kernel.initramfs import COPIER
from kmemdump.crash_kernel.installation import find_copier
from kmemdump.errors import UnsupportedError
from kmemdump.lab.apt import run
from kmemdump.lab.architectures import Architecture
from kmemdump.lab.module import find_compiler
from kmemdump.lab.packages import PackageCache

__all__ = ["build_copier"]

_SOURCE = Path(__file__).parents[3] / "kdump"


def build_copier(cache: PackageCache, architecture: Architecture) -> Path:
    """
    Return the copier, built for an architecture.

    Without the source it is the installed one, if that is for this machine.

    :raises UnsupportedError: If the compiler or the source is missing, or the compiler
        refuses it.
    """
    if not (_SOURCE / "Makefile").exists():
        if architecture.name == platform.machine():
            return find_copier()
        raise UnsupportedError(f"{_SOURCE}: no source, expected a clone of kmemdump")
    find_compiler(architecture)
    sources = sorted(_SOURCE.glob("*.[ch]"))
    made_of = [path.read_bytes() for path in (_SOURCE / "Makefile", *sources)]
    digest = hashlib.sha256(b"".join(made_of)).hexdigest()[:12]

    def make(folder: Path) -> None:
        cross, build = f"CROSS={architecture.compiler}", f"BUILD={folder}"
        run("make", "-s", "-C", str(_SOURCE), cross, build)

    return cache.entry(f"{COPIER}-{digest}-{architecture.name}", make) / COPIER
