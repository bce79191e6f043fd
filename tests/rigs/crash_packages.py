# SPDX-License-Identifier: GPL-2.0-or-later
"""
Debian's ``crash``, of any architecture and release, unpacked into a folder.

A newer crash brings its own C library, whose loader starts it; one of another
architecture runs in qemu-user. Nothing is installed.
"""

from __future__ import annotations

import platform
from pathlib import Path

from kmemdump.lab.architectures import Architecture
from kmemdump.lab.other_programs import loader, unpack_libraries
from kmemdump.lab.packages import PackageCache

__all__ = ["NEWER_RELEASE", "NEWEST_RELEASE", "unpacked_crash"]

NEWER_RELEASE = "trixie"
"""A release whose crash, 8.0.6, knows Linux 6.12: Debian 13."""
NEWEST_RELEASE = "sid"
"""A suite whose crash, 9.0.2 in November 2026, knows Linux 7.x."""


def unpacked_crash(
    cache: PackageCache, architecture: Architecture, release: str | None = None
) -> tuple[str, ...]:
    """
    Return the beginning of the command line that starts a crash.

    :param release: Debian's name of a release; this machine's, if it is None.
    :raises UnsupportedError: If it cannot be downloaded.
    """

    def unpack(folder: Path) -> None:
        apt = cache.apt(architecture, release)
        unpack_libraries(apt.unpack("crash", folder), apt, folder)

    name = "_".join(filter(None, ("crash", architecture.debian, release)))
    root = cache.entry(name, unpack)
    program = str(root / "usr/bin/crash")
    if architecture.name != platform.machine():
        emulator = f"qemu-{architecture.name}-static"
        # Not QEMU's newest CPU: it signs return addresses if programs ask for that, as
        # Debian 13's do, and is then ten times slower to emulate.
        return (emulator, "-cpu", architecture.cpu, "-L", str(root), program)
    return (*loader(root, architecture), program)
